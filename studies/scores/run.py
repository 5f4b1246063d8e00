"""Test the scores themselves: are they silent where nothing differs, and do they see what does? In studies/scores/.

    python -m studies.scores.run power            # how often the C2ST finds a change of real images
    python -m studies.scores.run proof            # are the errors right? real images scored as samples
    python -m studies.scores.run excess           # is its error right? real images as samples of any mix of classes
    python -m studies.scores.run mix              # what the mix of classes adds to the Frechet distance by chance
    python -m studies.scores.run levels           # does the C2ST tell real images from others, at each of its levels?

All need a default run in the workspace. Every row is saved at once, and not computed again.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transform

from ddpm.cli.reading import read_real
from ddpm.cli.summary import SURE, compared
from ddpm.diffusion.randomness import generator
from ddpm.images.splits import Split, load_split
from ddpm.params.data import DataParams
from ddpm.processes.device import Runtime, start
from ddpm.scores.c2st import c2st_pairs, run_c2st
from ddpm.scores.classifier import NAMES, load_classifier
from ddpm.scores.comparisons import compare, draw_places
from ddpm.scores.components import principal_components
from ddpm.scores.distances import frechet_distance
from ddpm.scores.evaluation import Classified, Sets, classify, examine
from exact_stages.console import run
from studies.table import Table

OUT, MODELS, PROCESSED = Path("studies/scores"), Path("models"), Path("data/processed")
POWER = [(200, 20), (600, 20), (2000, 5)]  # images on each side, draws
PROOF = [("scores", 200, 200), ("scores", 2000, 200), ("two-sample", 200, 200), ("two-sample", 2000, 50)]  # the same
MIXED, MIXES = 10_000, 20  # images in a draw, draws
EXCESSES = [(2_000, 50), (10_000, 50)]  # the same
MELTED = 3
POOL = 30_000  # images that the pairs are drawn from
TRAIN = 6  # training images for each sample, as for MNIST
NETWORK = "b"


def main() -> None:
    """Compute the rows that the table of a part does not have."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("part", choices=[*PARTS])
    options.add_argument("--real", type=Path, default=PROCESSED / "train.safetensors", help="power: as in ddpm score")
    args = options.parse_args()
    table, runtime = Table(OUT / f"{args.part}.csv"), start()
    for row in PARTS[args.part](args.real, table, runtime):
        table.add(row | {"threads": torch.get_num_threads(), "dtype": str(runtime.precision).removeprefix("torch.")})
        print(row, flush=True)


def power(real: Path, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Tell changed images from other ones that are not changed; all are random."""
    as_they_are = {"image_size": None, "colour": None, "fit": "crop", "background": "white", "test": 0.1}
    train = read_real(real, DataParams.model_validate({"set": str(real), **as_they_are})).train
    numbered = [(count, draw) for count, draws in POWER for draw in range(draws)]
    for (count, draw), name in product(numbered, CHANGES):
        key = {"set": train.card.name, "change": name, "count": count, "draw": draw}
        if table.has(key):
            continue
        order = torch.randperm(len(train.split.images), generator=generator(draw, "power"))
        ours, others = (train.split.images[each] for each in order[: 2 * count].split(count))
        began = time.process_time()
        found = run_c2st(CHANGES[name](ours), others, NETWORK, draw, runtime).accuracy
        assert found.value is not None
        assert found.error is not None
        measured = {"accuracy": round(found.value, 4), "error": round(found.error, 4)}
        rejects = abs(found.value - 0.5) > SURE * found.error
        yield key | measured | {"rejects": int(rejects), "cpu_seconds": round(time.process_time() - began)}
    rows = pd.read_csv(table.path).groupby(["set", "change", "count"], sort=False)
    columns = {"draws": ("draw", "size"), "power": ("rejects", "mean"), "accuracy": ("accuracy", "mean")}
    print(rows.agg(**columns, error=("error", "mean")).round(3).to_string())


def proof(_: Path, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Score random real images as samples beside others as test images: z is their difference over its error.

    The images are of both splits, so that nothing but chance tells sets of them apart. All sets are disjoint. The
    training images are TRAIN times as many.
    """
    splits = [load_split(PROCESSED / f"{name}.safetensors") for name in ("train", "test")]
    images, labels = (torch.cat(parts) for parts in zip(*(each.split for each in splits), strict=True))
    real = Split(images, labels).take(torch.randperm(len(images), generator=generator(0, "pool"))[:POOL])
    seen = classified(real, runtime)  # every image once for all pairs
    spaces = {name: each.features for name, each in seen.items()}
    spaces["pixels"] = principal_components(real.images)(real.images)
    for part, count, pair in [(part, count, pair) for part, count, pairs in PROOF for pair in range(pairs)]:
        key = {"part": part, "count": count, "pair": pair}
        if table.has(key):
            continue
        order = torch.randperm(POOL, generator=generator(pair, "proof"))[: (2 + TRAIN) * count]
        samples, test, train = parts = order.split([count, count, TRAIN * count])
        scores: dict[str, Any] = {"samples": {}, "real": {}, "test": {}}
        if part == "scores":
            kept, passing = (torch.ones(len(each), dtype=torch.bool) for each in (samples, train))
            labels = real.labels
            places = draw_places(labels[samples], labels[test], labels[train], kept, passing, pair)
            scores |= {name: compare(each[samples], each[test], each[train], places) for name, each in spaces.items()}
            sets = Sets(*(seen[NAMES[-1]].take(each) for each in parts))
            scores |= examine(sets, places, [*range(len(splits[0].card.classes))])[0]
        else:
            pairs = c2st_pairs({"samples": real.images[samples]}, real.images[train[:count]])
            for (row, name), both in pairs.items():
                scores[row] |= run_c2st(*both, NETWORK, pair, runtime).accuracy.row(name)
        yield key | {each.key: f"{each.excess / each.error:.2f}" for each in compared(scores) if each.error}
    print(proven(table.path))


def proven(path: Path) -> str:
    """Return for each score the root mean square of z, and the share of pairs beyond SURE errors."""
    rows = pd.read_csv(path).drop(columns=["part", "pair", "threads", "dtype"])
    rows = rows.melt("count", var_name="score", value_name="z").dropna()
    rows = rows.assign(square=rows["z"] ** 2, beyond=rows["z"].abs() > SURE)
    found = rows.groupby(["score", "count"], sort=False)
    columns = {"pairs": found.size(), "rms z": found["square"].mean() ** 0.5, "beyond": found["beyond"].mean()}
    return pd.DataFrame(columns).round(3).to_string()


def excess(_: Path, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Score random training images as samples, with their mix by chance, beside the others: z is excess over error."""
    split = load_split(PROCESSED / "train.safetensors").split
    features, labels = classified(split, runtime)[NETWORK].features, split.labels
    for count, draw in [(count, draw) for count, draws in EXCESSES for draw in range(draws)]:
        if table.has(key := {"part": "excess", "count": count, "pair": draw}):
            continue
        order = torch.randperm(len(labels), generator=generator(draw, "excess"))
        ours, test, train = order.split([count, count, len(order) - 2 * count])
        kept, passing = (torch.ones(len(each), dtype=torch.bool) for each in (ours, train))
        places = draw_places(labels[ours], labels[test], labels[train], kept, passing, draw)
        row = compare(features[ours], features[test], features[train], places)["samples"]
        value, error = row["frechet_excess"], row["frechet_excess_error"]
        assert value is not None
        assert error
        yield key | {"b.frechet_excess": f"{value / error:.2f}"}
    print(proven(table.path))


def mix(_: Path, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Compare random training images with the other ones; their mix of classes is by chance, or that of all."""
    split = load_split(PROCESSED / "train.safetensors").split
    seen = classified(split, runtime)
    for draw, name in product(range(MIXES), ("by chance", "of all")):
        key = {"mix": name, "count": MIXED, "draw": draw}
        if table.has(key):
            continue
        order = torch.randperm(len(split.labels), generator=generator(draw, "mix"))
        places = torch.arange(MIXED)
        if name == "of all":  # sorted by class, every N/MIXED-th image
            order = order[split.labels[order].argsort(stable=True)]
            places = torch.linspace(0, len(order) - 1, MIXED).round().long()
        ours = torch.zeros(len(order), dtype=torch.bool).index_fill(0, places, True)
        values = {
            f"frechet_{each}": frechet_distance(found.features[order[~ours]], found.features[order[ours]])
            for each, found in seen.items()
        }
        yield key | {each: round(value, 5) for each, value in values.items()}
    print(pd.read_csv(table.path).groupby("mix")[["frechet_a", "frechet_b"]].agg(["mean", "std"]).round(4).to_string())


def levels(_real: Path, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Tell random training images from as many others, MIXED on each side, with each number of levels of the scores."""
    images = load_split(PROCESSED / "train.safetensors").split.images
    ours, others = (
        images[each] for each in torch.randperm(len(images), generator=generator(0, "levels"))[: 2 * MIXED].split(MIXED)
    )
    for (_, name), pair in c2st_pairs({"samples": ours}, others).items():
        if not table.has(key := {"score": name, "count": MIXED}):
            found = run_c2st(*pair, NETWORK, 0, runtime).accuracy
            yield key | {each: f"{value:.4f}" for each, value in found._asdict().items()}


def classified(split: Split, runtime: Runtime) -> dict[str, Classified]:
    """Return what each classifier sees in the images."""
    files = {name: MODELS / f"classifier-{name}.safetensors" for name in NAMES}
    return {name: classify(load_classifier(file), *split, runtime) for name, file in files.items()}


def blurred(pixels: float) -> Callable[[Tensor], Tensor]:
    """Return a change that blurs by a Gaussian of this deviation."""
    size = 2 * math.ceil(3 * pixels) + 1
    return lambda images: transform.gaussian_blur(images, [size, size], [pixels, pixels])


def noisy(images: Tensor) -> Tensor:
    """Add -1, 0 or 1 to each level."""
    noise = torch.randint(-1, 2, images.shape, generator=generator(0, "noise"))
    return (images + noise).clamp(0, 255).byte()


def turned(images: Tensor) -> Tensor:
    """Turn images by 3 degrees, with bilinear interpolation."""
    return transform.rotate(images, 3, transform.InterpolationMode.BILINEAR, fill=[float(images[0, 0, 0, 0])])


def melted(images: Tensor) -> Tensor:
    """Move the pixels by up to MELTED along a smooth random field, so that shapes run and levels stay as they are."""
    count, _, height, width = images.shape
    field = torch.rand(count, 2, 4, 4, generator=generator(0, "melted")) * 2 - 1
    moves = F.interpolate(field, size=(height, width), mode="bicubic").movedim(1, 3)
    grid = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(images.shape), align_corners=False)
    moves = 2 * MELTED * moves / torch.tensor([width, height])
    return F.grid_sample(images.float(), grid + moves, "nearest", "border", align_corners=False).byte()


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "blurred by 0.3 pixels": blurred(0.3),
    "blurred by 1 pixel": blurred(1),
    "noise of one level": noisy,
    "turned by 3 degrees": turned,
    "melted by up to 3 pixels": melted,
}

PARTS = {"power": power, "proof": proof, "excess": excess, "mix": mix, "levels": levels}

if __name__ == "__main__":
    run(main)
