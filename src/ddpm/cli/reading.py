"""Read real images and samples of any origin, in one size and colour."""

import csv
import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.card import DataCard, listed
from ddpm.images.splits import Processed, load_samples, load_split
from ddpm.ingest.decoded import Images
from ddpm.ingest.decoding import Levels, Target
from ddpm.ingest.folders import Folder, Picture, read_folder
from ddpm.ingest.mnist import is_mnist, read_mnist
from ddpm.ingest.preparation import DataParams, looks_of, target_of
from ddpm.ingest.splitting import split_images
from ddpm.ingest.summary import write_split
from exact_stages.console import UserError, shown

HELD_OUT, MOST_HELD_OUT, LEAST_HELD_OUT = 0.1, 2000, 100  # of real images without a test set; see `held_out_count`
TRACES = "this leaves traces, which the scores may see"


class Real(NamedTuple):
    """Real images, those that are held out, and how to convert other images to theirs."""

    train: Processed
    test: Processed
    target: Target


class SampleSet(NamedTuple):
    """Samples, uint8 (N, C, H, W); their classes (N,), None if unknown; and the labels of the sampled classes."""

    images: Tensor
    labels: Tensor | None
    classes: list[int]


def read_real(path: Path, params: DataParams, like_preprocess: bool = False) -> Real:
    """Read a folder, or train.safetensors with the test.safetensors next to it.

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
        return Real(train, test, Target(train.card.shape, train.card.shape[1:], params.fit, params.background_colour))
    folder = _folder(path, "--real")
    target, why = target_of(looks_of(folder.pictures, params.background_colour), params)
    for name, text in why.items():
        print(f"{name.removeprefix('data.')} of --real: {text}")
    card = DataCard(name=shown(path.resolve().name) or "images", shape=target.shape, classes=folder.classes)
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile(dir=place) as scratch:
        images = Images(scratch, folder.pictures, target)
        if not (folder.tested or like_preprocess):
            share = float(images.places.kthvalue(1 + held_out_count(len(images.places))).values)
            params = params.model_copy(update={"test": share})
        sides = split_images(images, folder, params)
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

    Classes are matched by name; labels.csv of `ddpm generate` may name them. Samples of a folder or npz file are put
    into a random order: scores of equal counts take the first ones, and such samples are often sorted by class.

    Raises:
        UserError: files are missing or damaged, or the real images lack a class.
    """
    pictures, names, sampled = _sources(path)
    card, target = real.train.card, real.target
    if sampled is None:
        order = torch.randperm(len(pictures), generator=generator(0, "samples")).tolist()
        pictures, names = [pictures[each] for each in order], names and [names[each] for each in order]
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
    looks = looks_of(pictures, target.background)
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
        return (
            _pictures(found.images.permute(0, 2, 3, 1).numpy(), path),
            named,
            [names[label] for label in found.classes],
        )
    if path.suffix == ".npz":
        return *_from_npz(path), None
    folder = _folder(path, "--samples")
    pictures = folder.pictures[: len(folder.pictures) - folder.tested]
    table = path / "labels.csv"
    if len(folder.classes) > 1 or not table.is_file():
        return pictures, [folder.classes[each.label] for each in pictures], None
    try:
        with table.open(encoding="utf-8-sig", newline="") as opened:  # spreadsheets begin it with a mark
            rows = [(row["image"], row["label"]) for row in csv.DictReader(opened)]
        if twice := [file for file, lines in Counter(file for file, _ in rows).items() if lines > 1]:
            raise UserError(f"{table}: more than one line for {listed(twice)}; keep one of each")
        by_file = dict(rows)
        return pictures, [by_file[Path(str(each.source)).name] for each in pictures], None
    except (KeyError, ValueError) as error:
        raise UserError(f"{table}: needs the columns image and label, and a line for each file: {error}") from None


def _from_npz(path: Path) -> tuple[list[Picture], list[str] | None]:
    """Return the images of an npz file, and the names of their classes if it has labels and classes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            pictures = _pictures(file["images"] if "images" in file else file["arr_0"], path)
            if not ("labels" in file and "classes" in file):
                return pictures, None
            labels, classes = file["labels"], file["classes"]
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not an npz file with `images`, uint8 (N, H, W) or (N, H, W, 3): {error}") from None
    whole = labels.shape == (len(pictures),) and classes.ndim == 1 and labels.dtype.kind in "iu"
    if not whole or labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(f"{path}: its labels must be integers (N,), from 0 to below the number of classes")
    return pictures, [str(classes[label]) for label in labels]


def _pictures(arrays: Levels, path: Path) -> list[Picture]:
    """Return images (N, H, W) or (N, H, W, 1 or 3) as pictures."""
    known = arrays.ndim in (3, 4) and arrays.shape[3:] in ((), (1,), (3,))
    if arrays.dtype != np.uint8 or not known or not arrays.size:
        found = f"{arrays.dtype} {arrays.shape}"
        raise UserError(f"{path}: its images are {found}; they must be uint8 (N, H, W) or (N, H, W, 3)")
    return [Picture(each, 0) for each in (arrays[..., 0] if arrays.shape[3:] == (1,) else arrays)]


def _folder(path: Path, option: str) -> Folder:
    if not path.is_dir():
        accepted = "a folder or train.safetensors" if option == "--real" else "a folder, .npz or .safetensors"
        raise UserError(f"{option} {path}: must be {accepted}")
    return read_mnist(path) if is_mnist(path) else read_folder(path)
