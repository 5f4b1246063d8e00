"""Train a model and a filter on a subset, and fill up its classes, as the pipeline and `ddpm balance` do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ddpm.balancing.filling import FillInputs, Tally, fill, none_accepted
from ddpm.classifier.fit import train_classifier
from ddpm.classifier.model import Classifier, ClassifierParams, held_out
from ddpm.classifier.model import Recipe as ClassifierRecipe
from ddpm.compute.device import Runtime
from ddpm.diffusion.schedule import ScheduleParams
from ddpm.images.splits import Processed, Split
from ddpm.networks.checkpoint import load_model
from ddpm.networks.unet import UNetParams
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Sections, parse, read_yaml
from ddpm.sampling.samplers import SamplerParams
from ddpm.training.recipe import TrainParams
from ddpm.training.running import save_trained
from ddpm.training.setup import new_training, prepare
from studies.rare_class.subset import Subset


class Recipe(Sections):
    """The params of the pipeline that models and filters of the study follow."""

    schedule: ScheduleParams
    model: UNetParams
    train: TrainParams
    classifier: ClassifierParams
    sampler: SamplerParams


def read_recipe(changes: Mapping[str, Any]) -> Recipe:
    """Read params.yaml, with changes such as {"train.images": 60000} or {"sampler.guidance": 1}.

    Raises:
        UserError: the pipeline has no such param, or a value is invalid.
    """
    values = read_yaml(Path("params.yaml"))
    population = values["sample"]["population"]
    values["sampler"] = {key: value for key, value in population.items() if key in SamplerParams.model_fields}
    for name, value in changes.items():
        section, _, key = name.partition(".")
        if section not in Recipe.model_fields or key not in values[section]:
            raise UserError(
                f"{name}: models of the study have no such param; its sections are {', '.join(Recipe.model_fields)}"
            )
        values[section][key] = value
    return parse(Recipe, {name: values[name] for name in Recipe.model_fields}, "params.yaml")


def fill_up(
    subset: Subset, target: int, recipe: Recipe, seed: int, file: Path, runtime: Runtime
) -> tuple[Split, list[Tally]]:
    """Sample images of each class up to `target`; return those that the filter takes, and a tally of each class.

    Images of the pool stand for the test images that tell copies from samples.

    Args:
        file: of the model; it is trained unless the file is there.
    """
    if not file.exists():
        train(subset.kept, recipe, seed, file, runtime)
    loaded, judge = load_model(file, runtime.device), filter_of(subset.kept, recipe, seed, runtime)
    sampler = recipe.sampler.for_model(loaded.card)
    inputs = FillInputs(loaded, judge, sampler, seed, runtime, subset.kept.split, subset.pool, 0.0)
    images, labels, tallies = [none_accepted(loaded.card.data.shape).images], [torch.empty(0, dtype=torch.int64)], []
    for label, count in enumerate(subset.counts):
        tally = Tally()
        for tally, accepted in fill(inputs, label, target - count) if count < target else ():
            images.append(accepted.images)
            labels.append(torch.full((len(accepted.images),), label))
        tallies.append(tally)
    return Split(torch.cat(images), torch.cat(labels)), tallies


def train(kept: Processed, recipe: Recipe, seed: int, file: Path, runtime: Runtime) -> None:
    """Train a model with this seed, as stage train does, and write its file."""
    setup = prepare(kept, recipe.model, recipe.train.model_copy(update={"seed": seed}))
    training = new_training(setup, recipe.schedule, None, runtime)
    for _ in training.run():
        pass
    file.parent.mkdir(parents=True, exist_ok=True)
    save_trained(file, training, setup, recipe.schedule, {})


def filter_of(kept: Processed, recipe: Recipe, seed: int, runtime: Runtime) -> Classifier:
    """Train a classifier with this seed, as stage classifier@a does."""
    torch.manual_seed(seed)
    model = Classifier(ClassifierRecipe(images=recipe.classifier.images, seed=seed), kept.card)
    for _ in train_classifier(model, kept.split.take(~held_out(kept)), runtime):
        pass
    return model
