"""Read real images and samples of any origin, in one size and colour."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from platformdirs import user_cache_path
from torch import Tensor

from ddpm.diffusion.randomness import generator
from ddpm.images.card import listed
from ddpm.images.decoded import Images
from ddpm.images.decoding import Target
from ddpm.images.fetching import CHECKSUMS, FILES, fetch
from ddpm.images.folders import Picture
from ddpm.images.preparation import list_images, looks_of, notes_of, range_of, read_source
from ddpm.images.splits import SplitFile, load_samples, load_split
from ddpm.images.splitting import split_images
from ddpm.images.summary import write_split
from ddpm.params.data import DataParams
from exact_stages.console import UserError

HELD_OUT, MOST_HELD_OUT, LEAST_HELD_OUT = 0.1, 2000, 100  # of real images without a test set; see `held_out_count`
TRACES = "this leaves traces, which the scores may see"


class Real(NamedTuple):
    """Real images, those that are held out, and how to convert other images to theirs."""

    train: SplitFile
    test: SplitFile
    target: Target


class SampleSet(NamedTuple):
    """Samples, uint8 (N, C, H, W); their classes (N,), None if unknown; and the labels of the sampled classes."""

    images: Tensor
    labels: Tensor | None
    classes: list[int]


def named(path: Path) -> Path:
    """Return the folder of the set that `path` names, and fetch its files; return another path as it is."""
    if path.exists() or str(path) not in CHECKSUMS:
        return path
    own = Path("data", path)
    folder = own if all((own / file).is_file() for file in FILES) else user_cache_path("ddpm") / path
    fetch(str(path), folder)
    return folder


def read_real(path: Path, params: DataParams, like_preprocess: bool = False) -> Real:
    """Read a set as `preprocess` does, or train.safetensors with the test.safetensors next to it.

    Args:
        like_preprocess: whether to hold out the images that the stage does, for classifiers that it served; otherwise
            small sets hold out more.

    Raises:
        UserError: the files are missing, damaged, or do not fit together.
    """
    if path.suffix == ".safetensors":
        train, test = load_split(path), load_split(path.with_name("test.safetensors"))
        if train.card != test.card:
            raise UserError(f"{path.with_name('test.safetensors')}: made from other images than {path}")
        card = train.card
        target = Target(card.shape, card.shape[1:], params.fit, params.background_colour, card.source_range)
        return Real(train, test, target)
    folder, target, card, why = read_source(path, **params.wanted)
    for name, text in why.items():
        print(f"{name.removeprefix('data.')} of --real: {text}")
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile(dir=place) as scratch:
        images = Images(scratch, folder.pictures, target)
        share = params.test
        if not (folder.tested or like_preprocess):
            share = float(images.places.kthvalue(1 + held_out_count(len(images.places))).values)
        sides = split_images(images, folder, share)
        if not (folder.tested or like_preprocess) and int(sides.test.sum()) < LEAST_HELD_OUT <= len(sides.test) // 2:
            least = images.places[sides.groups].kthvalue(LEAST_HELD_OUT).values  # near-duplicates left the other side
            sides = sides._replace(test=images.places[sides.groups] <= least)
        if not sides.test.any() or sides.test.all():
            raise UserError(f"--real {path}: all images are near-duplicates of one another, so none can be held out")
        files = Path(place, "train.safetensors"), Path(place, "test.safetensors")
        for file, chosen in zip(files, (~sides.test, sides.test), strict=True):
            write_split(file, card, images, sides, chosen)
        train, test = map(load_split, files)
        return Real(train, test, target)


def held_out_count(count: int) -> int:
    """Return how many of `count` images to hold out: a tenth, of fewer than 20,000 a larger share."""
    return min(count - 1, max(round(HELD_OUT * count), min(count // 3, MOST_HELD_OUT), min(count // 2, LEAST_HELD_OUT)))


def read_samples(path: Path, real: Real) -> SampleSet:
    """Read samples: a folder, an npz file, or a file of the stages sample and filter. Convert them as the real images.

    Classes are matched by name. Samples of a folder or npz file are put into a random order: scores of equal counts
    take the first ones, and such samples are often sorted by class.

    Raises:
        UserError: files are missing or damaged, or the real images lack a class.
    """
    pictures, names, sampled = _sources(path)
    card, target = real.train.card, real.target
    unknown = sorted({*(names or [])} - {*card.classes})
    if len({*(names or [])}) == len(unknown) == 1:  # a folder without classes, which names itself
        names, unknown = None, []
    if unknown:
        raise UserError(
            f"--samples {path}: the real images have no class {listed(unknown)}, but {listed(card.classes)}; rename "
            "it, or put all samples into one folder, without classes"
        )
    labels = None if names is None else torch.tensor([card.classes.index(name) for name in names])
    if sampled is not None:
        classes = [*card.labels(sampled, f"--samples {path}")]
    else:
        classes = [*range(len(card.classes))] if labels is None else labels.unique().tolist()
    if labels is None and len(classes) > 1:
        print("note: the samples have no classes, so whether they show their class is left out")
    seen = looks_of(pictures, target.background, target.range)
    for each in notes_of(seen, None):
        print(f"samples: {each}")
    if not target.range and (chosen := range_of(seen)):
        target = target._replace(range=chosen)
        print(f"samples: their range is {chosen[0]:,g} to {chosen[1]:,g}; the real images, of 8 bits, have none")
    looks = seen.looks
    if {each[:2] for each in looks} == {target.shape[1:]}:  # of a model that was trained on padded images
        target = target._replace(inner=target.shape[1:])
    if others := sorted({each[:2] for each in looks} - {target.inner}):
        sizes = " x ".join(map(str, others[0])) if len(others) == 1 else f"{len(others)} sizes"
        print(f"warning: samples of {sizes} are resized to {target.inner[0]} x {target.inner[1]}; {TRACES}")
    if target.shape[0] == 1 and any(each.colour for each in looks):
        print(f"warning: samples in colour are made grey, as the real images are; {TRACES}")
    with tempfile.TemporaryFile() as scratch:
        images = Images(scratch, pictures, target)
        return SampleSet(torch.cat([*images.take(torch.ones(len(pictures), dtype=torch.bool))]), labels, classes)


def _sources(path: Path) -> tuple[Sequence[Picture], list[str] | None, Sequence[str] | None]:
    """Return the samples, the name of each one's class, and the names of the sampled classes; None: unknown."""
    if path.suffix == ".safetensors":
        found = load_samples(path)
        names, labels = found.card.classes, found.labels
        named = None if labels is None else [names[label] for label in labels.tolist()]
        levels = found.images.permute(0, 2, 3, 1).numpy()
        pictures = [Picture(each, 0) for each in (levels[..., 0] if levels.shape[3] == 1 else levels)]
        return pictures, named, [names[label] for label in found.classes]
    folder = list_images(path, least=1)
    order = torch.randperm(len(folder.pictures) - folder.tested, generator=generator(0, "samples"))
    pictures = [folder.pictures[index] for index in order.tolist()]
    return pictures, [folder.classes[each.label] for each in pictures], None
