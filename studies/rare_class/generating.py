"""Train a model and a filter on a subset, and fill up its classes, as the pipeline and `ddpm balance` do."""

from pathlib import Path

import torch

from ddpm.balancing.filling import FillInputs, Tally, fill, none_accepted
from ddpm.classifier.fit import train_classifier
from ddpm.classifier.model import Classifier, ClassifierParams, held_out
from ddpm.classifier.model import Recipe as ClassifierRecipe
from ddpm.compute.device import Runtime
from ddpm.images.splits import Processed, Split
from ddpm.model import load_model
from ddpm.sampling.params import fitted
from exact_stages.params import load_params
from stages.train import Params
from studies.rare_class.subset import Subset
from studies.trainings import population_sampler, train_model


class Recipe(Params):
    """The params of the pipeline that models and filters of the study follow; `population_sampler` has the rest."""

    classifier: ClassifierParams


def fill_up(subset: Subset, target: int, seed: int, file: Path, runtime: Runtime) -> tuple[Split, list[Tally]]:
    """Sample images of each class up to `target`; return those that the filter takes, and a tally of each class.

    Images of the pool stand for the test images that tell copies from samples.

    Args:
        file: of the model; it is trained unless the file is there.
    """
    recipe = load_params(Recipe)
    if not file.exists():
        seeded = recipe.train.model_copy(update={"seed": seed})
        train_model(file, subset.kept, recipe.model_copy(update={"train": seeded}), runtime, "")
    loaded, judge = load_model(file, runtime.device), filter_of(subset.kept, recipe.classifier, seed, runtime)
    sampler = fitted(population_sampler(), loaded.card)
    inputs = FillInputs(loaded, judge, sampler, seed, runtime, subset.kept.split, subset.pool, 0.0)
    images, labels, tallies = [none_accepted(loaded.card.data.shape).images], [torch.empty(0, dtype=torch.int64)], []
    for label, count in enumerate(subset.counts):
        tally = Tally()
        for tally, accepted in fill(inputs, label, target - count) if count < target else ():
            images.append(accepted.images)
            labels.append(torch.full((len(accepted.images),), label))
        tallies.append(tally)
    return Split(torch.cat(images), torch.cat(labels)), tallies


def filter_of(kept: Processed, params: ClassifierParams, seed: int, runtime: Runtime) -> Classifier:
    """Train a classifier with this seed, as stage classifier@a does."""
    torch.manual_seed(seed)
    model = Classifier(ClassifierRecipe(images=params.images, seed=seed), kept.card)
    for _ in train_classifier(model, kept.split.take(~held_out(kept)), runtime):
        pass
    return model
