"""Test the scores themselves: are they silent where nothing differs, and do they see what does? In studies/scores/.

    python -m studies.scores.run power            # how often the C2ST finds a change of real images
    python -m studies.scores.run proof            # are the errors right? real images scored as samples
    python -m studies.scores.run mix              # what the mix of classes adds to the Frechet distance by chance

All need a default run in the workspace. Every row is saved at once, and not computed again.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transform

from ddpm.classifier.model import NAMES, load_classifier
from ddpm.cli.reading import read_real
from ddpm.cli.summary import SURE, compared
from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import generator
from ddpm.images.splits import Split, load_split
from ddpm.ingest.preparation import DataParams
from ddpm.scoring.c2st import c2st_scores, run_c2st
from ddpm.scoring.comparisons import compare, draw_subsets
from ddpm.scoring.components import principal_components
from ddpm.scoring.evaluation import Classified, Sets, classify, examine
from ddpm.scoring.scores import frechet_distance
from exact_stages.console import run
from studies.arguments import at_least, parser
from studies.table import Table, read_rows

OUT, MODELS, PROCESSED = Path("studies/scores"), Path("models"), Path("data/processed")
MELTED = 3
POOL = 30_000  # images that the pairs are drawn from
TRAIN = 6  # training images for each sample, as for MNIST
NETWORK = "b"


def main() -> None:
    """Compute the rows that the table of a part does not have."""
    args = arguments()
    table, runtime = Table(OUT / f"{args.part}.csv"), start()
    for row in {"power": power, "proof": proof, "mix": mix}[args.part](args, table, runtime):
        table.add(row | {"threads": torch.get_num_threads(), "dtype": str(runtime.precision).removeprefix("torch.")})
        print(row, flush=True)


def power(args: argparse.Namespace, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Tell changed images from other ones that are not changed; all are random."""
    real = read_real(args.real, _as_they_are(args.real)).train
    for (count, draw), name in product(repeated(args.counts, args.draws), CHANGES):
        key = {"set": real.card.name, "change": name, "count": count, "draw": draw}
        if table.has(key):
            continue
        order = torch.randperm(len(real.split.images), generator=generator(draw, "power"))
        ours, others = (real.split.images[each] for each in order[: 2 * count].split(count))
        began = time.process_time()
        found = run_c2st(CHANGES[name](ours), others, NETWORK, draw, runtime).accuracy
        assert found.value is not None
        assert found.error is not None
        measured = {"accuracy": round(found.value, 4), "error": round(found.error, 4)}
        rejects = abs(found.value - 0.5) > SURE * found.error
        yield key | measured | {"rejects": int(rejects), "cpu_seconds": round(time.process_time() - began)}
    rows = read_rows(table.path).groupby(["set", "change", "count"], sort=False)
    columns = {"draws": ("draw", "size"), "power": ("rejects", "mean"), "accuracy": ("accuracy", "mean")}
    print(rows.agg(**columns, deviation=("accuracy", "std"), error=("error", "mean")).round(3).to_string())


def repeated(counts: Sequence[int], times: Sequence[int]) -> list[tuple[int, int]]:
    """Return each count with the numbers of its draws."""
    return [(count, draw) for count, most in zip(counts, times, strict=True) for draw in range(most)]


def _as_they_are(real: Path) -> DataParams:
    wanted = {"image_size": None, "colour": None, "fit": "crop", "background": "white", "test": 0.1}
    return DataParams.model_validate({"set": str(real), **wanted})


class Pool:
    """Real images of both splits, at random, so that nothing but chance tells sets of them apart."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        splits = [load_split(PROCESSED / f"{name}.safetensors") for name in ("train", "test")]
        images, labels = (torch.cat(parts) for parts in zip(*(each.split for each in splits), strict=True))
        order = torch.randperm(len(images), generator=generator(0, "pool"))[:POOL]
        self.split, self.classes = Split(images, labels).take(order), [*range(len(splits[0].card.classes))]

    @cached_property
    def seen(self) -> dict[str, Classified]:
        """What each classifier sees; every image is classified once for all pairs."""
        files = {name: MODELS / f"classifier-{name}.safetensors" for name in NAMES}
        return {name: classify(load_classifier(file), *self.split, self.runtime) for name, file in files.items()}

    @cached_property
    def pixels(self) -> Tensor:
        """Return the principal components of all images."""
        return principal_components(self.split.images)(self.split.images)

    def scores(self, places: Sequence[Tensor], seed: int) -> dict[str, Any]:
        """Compute all scores but those of the two-sample test and the baseline's distances, as `evaluate` does."""
        spaces = {name: each.features for name, each in self.seen.items()} | {"pixels": self.pixels}
        samples, test, train = places
        sets = Sets(*(self.seen[NAMES[-1]].take(each) for each in places))
        draws = draw_subsets(len(test), len(train), len(samples), seed)
        found = {
            name: compare(features[samples], features[test], features[train], draws)
            for name, features in spaces.items()
        }
        return found | examine(sets, draws, self.classes)[0]

    def two_sample(self, places: Sequence[Tensor], seed: int) -> dict[str, Any]:
        """Tell samples from as many training images."""
        samples, _, train = (self.split.images[each] for each in places)
        rows, _ = c2st_scores(samples, train[: len(samples)], NETWORK, seed, self.runtime)
        tests = {key: value for key, value in rows["samples"].items() if key.startswith("c2st")}
        return {"samples": tests, "test": {}, "baseline": {}}


def proof(args: argparse.Namespace, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Score random real images as samples beside others as test images: z is their difference over its error.

    All sets are disjoint. The training images are TRAIN times as many.
    """
    pool = Pool(runtime)
    parts = {"scores": (pool.scores, args.draws), "two-sample": (pool.two_sample, args.trained)}
    for part, (scored, pairs) in parts.items():
        for count, pair in repeated(args.counts, pairs):
            key = {"part": part, "count": count, "pair": pair}
            if table.has(key):
                continue
            order = torch.randperm(POOL, generator=generator(pair, "proof"))[: (2 + TRAIN) * count]
            found = compared(scored(order.split([count, count, TRAIN * count]), pair))
            yield key | {each.key: f"{each.excess / each.error:.2f}" for each in found if each.error}
    print(proven(table.path))


def proven(path: Path) -> str:
    """Return for each score the root mean square of z, and the share of pairs beyond SURE errors."""
    rows = read_rows(path)
    lines = [f"{'score':36}{'images':>7}{'pairs':>6}{'rms z':>7}{'beyond':>8}"]
    for name in rows.columns.difference(["part", "count", "pair", "threads", "dtype"], sort=False):
        for count, each in rows.groupby("count")[name]:
            z = each.dropna()
            if len(z):
                root, beyond = (z**2).mean() ** 0.5, (z.abs() > SURE).mean()
                lines.append(f"{name:36}{count:7}{len(z):6}{root:7.2f}{beyond:8.1%}")
    return "\n".join(lines)


def mix(args: argparse.Namespace, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Compare random training images with the other ones; their mix of classes is by chance, or that of all."""
    split = load_split(PROCESSED / "train.safetensors").split
    files = {name: MODELS / f"classifier-{name}.safetensors" for name in NAMES}
    seen = {name: classify(load_classifier(file), *split, runtime).features for name, file in files.items()}
    for (count, draw), name in product(repeated(args.counts, args.draws), ("by chance", "of all")):
        key = {"mix": name, "count": count, "draw": draw}
        if table.has(key):
            continue
        order = torch.randperm(len(split.labels), generator=generator(draw, "mix"))
        if name == "of all":  # sorted by class, every N/count-th image
            order = order[split.labels[order].argsort(stable=True)]
            places = torch.linspace(0, len(order) - 1, count).round().long()
        else:
            places = torch.arange(count)
        rest = torch.ones(len(order), dtype=torch.bool)
        rest[places] = False
        found = {
            each: frechet_distance(features[order[rest]], features[order[places]]) for each, features in seen.items()
        }
        yield key | {f"frechet_{each}": round(value, 5) for each, value in found.items()}
    print(read_rows(table.path).groupby(["mix", "count"]).describe().filter(like="frechet").round(4).T.to_string())


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


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__)
    options.add_argument("part", choices=["power", "proof", "mix"])
    options.add_argument("--counts", type=at_least(100), nargs="+", help="images in a set")
    options.add_argument("--draws", type=at_least(0), nargs="+", help="sets or pairs of each count")
    options.add_argument("--trained", type=at_least(0), nargs="+", default=[200, 50], help="proof: two-sample tests")
    options.add_argument("--real", type=Path, default=PROCESSED / "train.safetensors", help="power: as in ddpm score")
    args = options.parse_args()
    args.counts = args.counts or {"power": [200, 600, 2000], "proof": [200, 2000], "mix": [10_000]}[args.part]
    args.draws = args.draws or {"power": [20, 20, 5], "proof": [200, 200], "mix": [20]}[args.part]
    return args


if __name__ == "__main__":
    run(main)
