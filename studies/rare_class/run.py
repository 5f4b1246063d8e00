"""Fill up the rare classes of a subset of MNIST, and train classifiers on it: a stage of studies/dvc.yaml.

python -m studies.rare_class.run SUBSET
"""

import sys
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from ddpm.diffusion.training import new_training
from ddpm.images.splits import Split
from ddpm.params.sample import SetParams, SharedParams, fitted_set
from ddpm.pictures.grids import EACH_CLASS, by_class_picture
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import start
from ddpm.processes.workers import map_shards
from ddpm.processes.world import ALONE
from ddpm.scores.copying import nearest_neighbours
from exact_stages.console import progress, run
from exact_stages.params import Section, load_params, parse
from exact_stages.stage import Stage
from studies.rare_class.generating import Subset, fill_up, make_subset
from studies.rare_class.learning import METHODS, LearnParams, Method, augmentation, learn
from studies.trials import DEFAULT, changed, kept, mnist, params_of

HERE = Path("studies/rare_class")
ROWS, PARAMS = HERE / "rows", HERE / "params.yaml"


class StudyParams(Section):
    """Params of the study; studies/rare_class/params.yaml explains them."""

    counts: tuple[Annotated[int, Field(ge=2)], ...]
    target: PositiveInt
    pool: PositiveInt
    filter_images_seen: PositiveInt
    seeds: PositiveInt
    learn: LearnParams


def main() -> None:
    """Make the rows of a subset, one for each classifier and one for each class, and a picture."""
    number = int(sys.argv[1])
    with Stage("rare_class", str(number)) as stage:
        params, runtime, real = load_params(StudyParams, path=PARAMS), start(), mnist()
        subset = make_subset(real.train, params.counts, params.pool, params.target, number)
        values = changed([f"train.seed={number}"])
        recipe = params_of(values)
        training = new_training(subset.kept, recipe.schedule, recipe.model, recipe.train, runtime)
        key = stage.fingerprint(runtime.describe())
        with Checkpoints(stage.name, key, ALONE, training=training) as checkpoints:
            checkpoints.run(f"subset {number}", training)
            loaded = kept(training, runtime)
            of_set = parse(SetParams, values["sample"]["scored"], str(DEFAULT), "sample.scored")
            shared = parse(SharedParams, values["sample"], str(DEFAULT), "sample")
            sampler, _ = fitted_set("scored", shared, of_set, loaded.card)
            length = params.filter_images_seen
            generated, tallies = fill_up(loaded, sampler, subset, params.target, length, number, runtime)
            extras = {
                "none": generated.take(slice(0)),
                "generated": generated,
                "real": like(generated.labels, subset.spare),
            }
            works = [*product(METHODS, range(params.seeds))]

            def learned(index: int) -> dict[str, Any]:
                method, seed = works[index]
                found = classified(subset, extras[method.extra], method, real.test.split, params.learn, seed)
                return method._asdict() | {"seed": seed} | found

            found = map_shards(learned, range(len(works)))
            rows = [*progress(found, desc="classifiers", total=len(works), unit="classifier")]
            for name, count, tally in zip(subset.kept.card.classes, subset.counts, tallies, strict=True):
                rows.append({"class": name, "images": count, **tally._asdict()})
            rows = [{"subset": number} | row for row in rows]
            stage.write(ROWS / f"{number}.png", picture(subset, generated))
            stage.write_json(ROWS / f"{number}.json", {"made_in": runtime.describe(), "rows": rows})
            checkpoints.save([ROWS / f"{number}.png", ROWS / f"{number}.json"])


def classified(
    subset: Subset, extra: Split, method: Method, test: Split, params: LearnParams, seed: int
) -> dict[str, Any]:
    """Train a classifier; return its accuracy, and the mean F1 of the classes of each count."""
    change = augmentation(method.augment, tuple(test.images.shape[2:]))
    found = learn(subset.kept.split, extra, method, change, subset.pool, test, params, seed)
    counts = torch.tensor(subset.counts)
    f1 = {f"f1_{count}": round(float(found.f1[counts == count].mean()), 5) for count in counts.unique().tolist()}
    return {"accuracy": round(found.accuracy, 5), **f1, "kept_step": found.kept_step}


def like(labels: Tensor, spare: Split) -> Split:
    """Take as many real images of each class as `labels` has."""
    classes = range(int(spare.labels.max()) + 1)
    rows = [(spare.labels == label).nonzero().flatten()[: int((labels == label).sum())] for label in classes]
    return spare.take(torch.cat(rows))


def picture(subset: Subset, generated: Split) -> bytes:
    """Draw real images, generated ones and the real ones nearest to them, of a class of each count."""
    rows, names = list[Tensor](), list[str]()
    for label in sorted(generated.labels.unique().tolist(), key=subset.counts.__getitem__)[::2]:
        real, sampled = (each.images[each.labels == label] for each in (subset.kept.split, generated))
        sampled = sampled[:EACH_CLASS]
        rows += [real[:EACH_CLASS], sampled, real[nearest_neighbours(sampled, real).nearest]]
        names += [f"{subset.kept.card.classes[label]}: {each}" for each in ("real", "sampled", "nearest")]
    of_rows = torch.arange(len(rows)).repeat_interleave(torch.tensor([*map(len, rows)]))
    return by_class_picture(torch.cat(rows), of_rows, names, "generated images, and real ones of their classes")


if __name__ == "__main__":
    run(main)
