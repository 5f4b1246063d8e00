"""Test the scores themselves: are they silent where nothing differs, and do they see what does? In studies/scores/.

    python -m studies.scores.run power            # which changes of real images the judges see
    python -m studies.scores.run halves           # real images scored as samples, twenty times
    python -m studies.scores.run copies --real data/processed/train.safetensors

`power` and `halves` need a default run in the workspace. Every row is saved at once, and not computed again.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transform

from ddpm.classifier.model import NAMES
from ddpm.cli.reading import read_real
from ddpm.cli.summary import SURE, compared
from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import generator
from ddpm.images.splits import Split, load_split
from ddpm.ingest.preparation import DataParams
from ddpm.scoring.copying import compare_nearness, middle, shifted
from ddpm.scoring.evaluation import evaluate
from ddpm.scoring.two_sample import JUDGES, two_sample_test
from exact_stages.console import run
from studies.arguments import at_least, parser
from studies.scoring import MODELS, PROCESSED
from studies.table import Table

OUT = Path("studies/scores")
COPIED = 0.05


def main() -> None:
    """Compute the rows that the table of a part does not have."""
    args = arguments()
    table, runtime = Table(OUT / f"{args.part}.csv"), start()
    for row in {"power": power, "halves": halves, "copies": copies}[args.part](args, table, runtime):
        table.add(row | {"threads": torch.get_num_threads(), "dtype": str(runtime.precision).removeprefix("torch.")})
        print(row, flush=True)


def power(args: argparse.Namespace, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Let both judges tell changed training images from other ones, that are not changed."""
    split = load_split(PROCESSED / "train.safetensors").split
    order = torch.randperm(len(split.images), generator=generator(0, "power"))
    ours, others = (split.take(each) for each in (order[: args.count], order[args.count : 2 * args.count]))
    for judge in sorted(JUDGES, reverse=True):
        for name, change in CHANGES.items():
            key = {"change": name, "judge": judge, "count": args.count}
            if table.has(key):
                continue
            began = time.process_time()
            found = two_sample_test(change(ours), others.images, judge, 0, runtime).accuracy
            seconds = round(time.process_time() - began)
            yield key | {"accuracy": found.value, "deviation": found.deviation, "cpu_seconds": seconds}


def halves(args: argparse.Namespace, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Score a half of real images, which no classifier has seen, as samples against the other half."""
    train, test = (load_split(PROCESSED / f"{name}.safetensors") for name in ("train", "test"))
    classes = [*range(len(train.card.classes))]
    files = {name: MODELS / f"classifier-{name}.safetensors" for name in NAMES}
    for seed in range(args.seeds):
        key = {"seed": seed, "count": args.count}
        if table.has(key):
            continue
        order = torch.randperm(len(test.split.labels), generator=generator(seed, "halves"))
        one, other = (test.split.take(each) for each in order[: 2 * args.count].split(args.count))
        rows = torch.randperm(len(train.split.labels), generator=generator(seed, "reference"))[: 3 * args.count]
        found = evaluate(one, other, train.split.take(rows), classes, files, runtime).scores
        errors = {each.key: round(each.excess / each.error, 2) for each in compared(found) if each.error}
        yield key | {"beyond": sum(abs(each) > SURE for each in errors.values())} | errors


def copies(args: argparse.Namespace, table: Table, runtime: Runtime) -> Iterator[dict[str, object]]:
    """Plant copies among real images that are new, and count near copies in pixels."""
    wanted = {"image_size": None, "colour": None, "fit": "crop", "background": "white", "test": 0.1}
    real = read_real(args.real, DataParams.model_validate({"set": str(args.real), **wanted}))
    order = torch.randperm(len(real.train.split.labels), generator=generator(0, "copies"))
    count = min(args.count, len(order) // 2)
    planted = round(COPIED * count)
    fresh, train = (real.train.split.take(each) for each in order.split([count, len(order) - count]))
    for name, change in {"none": None, "unchanged": lambda x: x, "moved by a pixel": moved}.items():
        key = {"set": real.train.card.name, "copies": name, "count": count}
        if table.has(key):
            continue
        copied = train.take(slice(planted if change else 0))
        images = torch.cat([change(copied.images) if change else copied.images, fresh.images[len(copied.labels) :]])
        labels = torch.cat([copied.labels, fresh.labels[len(copied.labels) :]])
        began = time.process_time()
        test = real.test.split
        found, *_ = compare_nearness(
            (shifted(images), labels), (shifted(test.images), test.labels), (middle(train.images), train.labels), 0
        )
        shares = {name: value for kind in found._fields for name, value in getattr(found, kind).row(kind).items()}
        yield key | shares | {"cpu_seconds": round(time.process_time() - began)}


def moved(images: Tensor) -> Tensor:
    """Move images by one pixel to the right; the first column is repeated."""
    return torch.cat([images[..., :1], images[..., :-1]], dim=3)


def affine(angle: float, across: float) -> Callable[[Split], Tensor]:
    """Return a change that turns images by degrees, and moves them by pixels, with bilinear interpolation."""

    def change(split: Split) -> Tensor:
        width = split.images.shape[3]
        turn = torch.tensor(angle).deg2rad()
        theta = torch.tensor([[turn.cos(), -turn.sin(), 2 * across / width], [turn.sin(), turn.cos(), 0]])
        grid = F.affine_grid(theta.expand(len(split.images), 2, 3), list(split.images.shape), align_corners=False)
        return F.grid_sample(split.images.float(), grid, padding_mode="border", align_corners=False).round().byte()

    return change


def jpeg(split: Split) -> Tensor:
    """Encode and decode images as JPEG at quality 95."""
    found = []
    for image in split.images.permute(0, 2, 3, 1).squeeze(3).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        found.append(np.asarray(Image.open(buffer)).reshape(*split.images.shape[2:], -1))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def noisy(split: Split) -> Tensor:
    """Add -1, 0 or 1 to each level."""
    noise = torch.randint(-1, 2, split.images.shape, generator=generator(0, "noise"))
    return (split.images + noise).clamp(0, 255).byte()


def misplaced(split: Split) -> Tensor:
    """Replace one image in ten by an image of another class."""
    images = split.images.clone()
    for index in range(0, len(images), 10):
        others = (split.labels != split.labels[index]).nonzero().squeeze(1)
        images[index] = split.images[others[index % len(others)]]
    return images


CHANGES: dict[str, Callable[[Split], Tensor]] = {
    "none": lambda split: split.images,
    "moved by half a pixel": affine(0, 0.5),
    "blurred by 0.3 pixels": lambda split: transform.gaussian_blur(split.images, [5, 5], [0.3, 0.3]),
    "strokes one level brighter": lambda split: split.images + ((split.images > 0) & (split.images < 255)).byte(),
    "noise of one level": noisy,
    "JPEG at quality 95": jpeg,
    "turned by 3 degrees": affine(3, 0),
    "one image in ten of another class": misplaced,
}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__)
    options.add_argument("part", choices=["power", "halves", "copies"])
    options.add_argument("--count", type=at_least(100), default=10_000, help="images on each side")
    options.add_argument("--seeds", type=at_least(1), default=20, help="number of halves")
    options.add_argument("--real", type=Path, default=PROCESSED / "train.safetensors", help="as in ddpm score")
    return options.parse_args()


if __name__ == "__main__":
    run(main)
