"""Images that show nothing, in any number, and a workspace in which the pipeline's stages run on them.

The memory of a process counts as that of its child until the child is another program: nothing here imports torch at
once, and what takes memory is written by a process apart.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ddpm.pipeline.console import UserError, progress
from ddpm.pipeline.params import read_yaml

ROOT = Path(__file__).resolve().parents[1]
COARSE, CLASSES, PART = 8, 10, 5_000
SET = "pictures"  # the folder that is data.set
TEST = 0.1  # share of the images
MEGABYTE = 1 << 20
RESIDENT = 1 if sys.platform == "darwin" else 1 << 10  # bytes of what getrusage counts in
TICK = 0.05  # seconds from one look at a running command to the next
TINY: dict[str, Any] = {  # params with which all stages take seconds
    "classifier.channels": 1,
    "classifier.epochs": 1,
    "model.channels": [8, 16],
    "model.patch_size": 2,
    "train.epochs": 1,
    "sample.gallery.count": 8,
    "sample.gallery.steps": 20,
    "sample.gallery.keep_every": 2,
    "sample.population.count": 64,
    "sample.population.steps": 5,
    "filter.least_probability": 0,
    "likelihood.images": 10,
    "likelihood.terms": 3,
    "classification_accuracy_score.count": 64,
    "classification_accuracy_score.classifiers": 1,
}
Shape = tuple[int, int, int]
Levels = np.ndarray[Any, np.dtype[np.uint8]]


class Cost(NamedTuple):
    """What a command took.

    cpu: the seconds that all its processes computed, on whatever core, which tell less of what runs beside them.
    peak: megabytes that its largest process had in memory at most, what it maps of files among it.
    own: megabytes that all its processes had at most together, without what they map of files: that the system can drop
        and read again. Zero where there is no /proc.
    """

    seconds: float
    cpu: float
    peak: float
    own: float


def measured(command: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> Cost:
    """Run a command in a folder, and watch it.

    Raises:
        UserError: it failed; what it printed is above.
    """
    began, own, ended, status = time.perf_counter(), 0, 0, 0
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL
    )
    while not ended:
        time.sleep(TICK)
        own = max(own, anonymous(process.pid))
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{' '.join(command)}: failed, see above")
    seconds, cpu = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
    return Cost(seconds, cpu, usage.ru_maxrss * RESIDENT / MEGABYTE, own / MEGABYTE)


def anonymous(pid: int) -> int:
    """Bytes of a process and of all below it that are no file's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has ended, or there is no /proc
        return 0
    lines = dict(line.split(":", 1) for line in status.splitlines())
    own = 1024 * int(lines.get("RssAnon", "0 kB").split()[0])
    return own + sum(anonymous(int(child)) for text in children for child in text.split())


def disk(*paths: Path) -> float:
    """Megabytes that files and folders take, what is linked twice counted once."""
    found = {}
    for path in paths:
        for each in [path, *path.rglob("*")]:
            if each.exists() and not each.is_symlink():
                status = each.stat()
                found[status.st_ino] = 512 * status.st_blocks
    return sum(found.values()) / MEGABYTE


def copy_stages(folder: Path) -> None:
    """What `dvc repro` runs on, without images, results or a cache."""
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)


def make_workspace(folder: Path, shape: Shape) -> None:
    """Copy the stages, ask for images of this shape, and make it a repository of DVC alone."""
    copy_stages(folder)
    channels, *size = shape
    changes = {"data.set": SET, "data.image_size": size, "data.colour": channels == 3, "download.sets": []}
    set_params(folder, changes)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = True\n")


def set_params(folder: Path, changes: Mapping[str, Any]) -> None:
    """Change params of a workspace, each by its dotted name."""
    path = folder / "params.yaml"
    params = read_yaml(path)
    for name, value in changes.items():
        *sections, key = name.split(".")
        section = params
        for each in sections:
            section = section[each]
        section[key] = value
    path.write_text(json.dumps(params))  # which is YAML, too


def apart(write: Callable[..., None], *args: Any) -> None:
    """Call one of the functions below in a process of its own.

    Raises:
        UserError: it failed; what it printed is above.
    """
    process = multiprocessing.get_context("spawn").Process(target=write, args=args)
    process.start()
    process.join()
    if process.exitcode:
        raise UserError(f"{write.__name__}: failed, see above")


def levels(count: int, shape: Shape, *seed: int) -> Levels:
    """Images of flat squares, from dark to bright, no two of them equal, (count, C, H, W)."""
    source = np.random.default_rng(seed)
    channels, height, width = shape
    squares = source.integers(0, 128, (count, channels, COARSE, COARSE), np.uint8)
    squares += source.integers(0, 128, (count, channels, 1, 1), np.uint8)
    down, across = (np.arange(side) * COARSE // side for side in (height, width))
    return squares.take(across, 3).take(down, 2)


def parts(count: int, shape: Shape, seed: int = 0) -> Iterator[Levels]:
    """So many images, PART at a time, under a progress bar."""
    with progress(desc="images", total=count, unit="img") as bar:
        for first in range(0, count, PART):
            part = levels(min(PART, count - first), shape, seed, first)
            bar.update(len(part))
            yield part


def write_pictures(folder: Path, count: int, shape: Shape) -> None:
    """A PNG for each image, in a folder for each class."""
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for first, part in zip(range(0, count, PART), parts(count, shape), strict=True):
        for index, image in enumerate(part.transpose(0, 2, 3, 1), start=first):
            Image.fromarray(image.squeeze()).save(folder / f"{index % CLASSES}/{index:07}.png", compress_level=1)


def write_archives(pictures: Path, folder: Path) -> None:
    """A tar of each class."""
    folder.mkdir()
    for each in sorted(pictures.iterdir()):
        with tarfile.open(folder / f"{each.name}.tar", "w") as archive:
            archive.add(each, each.name)


def write_mnist_files(folder: Path, train: int, test: int) -> None:
    """As MNIST's four files, grey and 28 x 28, so many images to train on and to test."""
    folder.mkdir(parents=True)
    for seed, (prefix, number) in enumerate((("train", train), ("t10k", test))):
        with (folder / f"{prefix}-images-idx3-ubyte").open("wb") as file:
            file.write(b"".join(each.to_bytes(4, "big") for each in (0x0803, number, 28, 28)))
            for part in parts(number, (1, 28, 28), seed):
                file.write(part.data)
        labels = (np.arange(number) % CLASSES).astype(np.uint8)
        head = b"".join(each.to_bytes(4, "big") for each in (0x0801, number))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


def write_arrays(folder: Path, count: int, shape: Shape) -> None:
    """As the stage `preprocess` leaves them, without holding them in memory."""
    import torch

    from ddpm.images.card import DataCard
    from ddpm.images.splits import save_split

    card = DataCard(name=SET, shape=shape, classes=tuple(map(str, range(CLASSES))))
    folder.mkdir(parents=True)
    tested = int(count * TEST)
    counts = torch.arange(tested).remainder(CLASSES).bincount(minlength=CLASSES).tolist()
    for seed, (name, number) in enumerate((("train", count - tested), ("test", tested))):
        images = map(torch.from_numpy, parts(number, shape, seed))
        numbers = torch.arange(number)
        save_split(folder / f"{name}.safetensors", card, numbers % CLASSES, numbers, counts, images)
