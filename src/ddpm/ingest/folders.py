"""List the images of a folder and their classes.

Each class has a folder with images at any depth. Images directly in the folder form one class, named like the folder.
Both layouts may instead lie below train/ and test/.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ddpm.images.card import MAX_CLASSES, check_class_name, composed
from ddpm.ingest.decoding import Levels
from exact_stages.console import UserError, shown

Classes = dict[str, list[Path]]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
READ = "png, jpg, jpeg, webp, bmp or gif"
FAULTS = 50  # faults in one message
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}  # no names of classes


class Picture(NamedTuple):
    """A source image, as a file or as grey levels (H, W), and its label."""

    source: Path | Levels
    label: int


class Folder(NamedTuple):
    """The images of a folder.

    classes: the class names in natural order: digits by value, other characters by code point; "010" before "10".
    pictures: training images, then those of the folder's own test/; each in natural order of file names, then by path.
    tested: the number of images of test/, 0 if there is no such folder.
    ignored: hidden files and folders, and files with other suffixes than SUFFIXES, relative to the folder.
    """

    classes: tuple[str, ...]
    pictures: Sequence[Picture]
    tested: int
    ignored: list[Path]

    @property
    def files(self) -> list[Path]:
        """Return the files of the images; those of arrays have none."""
        return [each.source for each in self.pictures if isinstance(each.source, Path)]


def read_folder(root: Path) -> Folder:
    """List the images below `root`, except hidden ones.

    Raises:
        UserError: the folder has faults; the message has one line for each.
    """
    scan = _Scan(root)
    train, test = scan.splits()
    if not train and not scan.faults:
        scan.fault(root, f"no images ({READ})")
    if faults := scan.faults or _class_faults(train, test or {}):
        more = [f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
        ignored = [of_ignored(scan.ignored)] if scan.ignored else []
        first = f"{shown(str(root))}: {_count(len(faults), 'fault')}"
        raise UserError("\n  ".join([first, *faults[:FAULTS], *more, *ignored]))
    names = sorted(train, key=_natural)
    tested = _listed(root, names, test or {})
    pictures = _listed(root, names, train) + tested
    return Folder(tuple(map(composed, names)), pictures, len(tested), sorted(scan.ignored))


def of_ignored(files: list[Path]) -> str:
    """Describe ignored files in one line."""
    such = f"{_count(len(files), 'file')}, such as {shown(min(files).as_posix())}"
    return f"ignored, hidden or not {READ}: {such}"


class _Scan:
    """A scan of a folder, which collects faults and ignored files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.flat = Path(os.path.abspath(root)).name  # the class of images outside of class folders
        self.faults: list[str] = []
        self.ignored: list[Path] = []

    def fault(self, path: Path, reason: str) -> None:
        where = "" if path == self.root else f"{shown(path.relative_to(self.root).as_posix())}: "
        self.faults.append(where + reason)

    def splits(self) -> tuple[Classes, Classes | None]:
        """Return training and test images by class; the latter are None if there is no test folder."""
        folders, pictures = self.level(self.root)
        words = {each.name.casefold() for each in folders}
        if not words & {"train", "test"} and not (words and words <= SPLITS):
            return self.classes(self.root, folders, pictures), None
        if pictures:
            self.fault(self.root, f"{_count(len(pictures), 'image')} outside of train and test; move them into one")
        read = {}
        for folder in folders:
            if folder.name in ("train", "test"):
                read[folder.name] = self.classes(folder, *self.level(folder))
                if not any(read[folder.name].values()):
                    self.fault(folder, "no images")
            elif self.below(folder):
                self.fault(folder, "has images but is neither train nor test; rename it to one of them, or move it")
        if "train" not in read:
            self.fault(self.root, "no folder train")
        return read.get("train", {}), read.get("test")

    def classes(self, folder: Path, folders: list[Path], pictures: list[Path]) -> Classes:
        """Return the images of a folder by class; `folders` and `pictures` lie directly in it."""
        classes = {each.name: self.below(each) for each in folders}
        if pictures and any(classes.values()):
            self.fault(folder, f"{_count(len(pictures), 'image')} outside of the class folders; move them into one")
        elif pictures:
            return {self.flat: pictures}
        return classes

    def below(self, folder: Path) -> list[Path]:
        """Return the images below `folder`, at any depth."""
        found, waiting = [], [folder]
        while waiting:
            folders, pictures = self.level(waiting.pop())
            waiting += folders
            found += pictures
        return found

    def level(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Return the folders and images directly in `folder`, sorted by name, and record faults and other files."""
        folders, pictures = list[Path](), list[Path]()
        try:
            names = sorted(os.listdir(folder))
        except (OSError, ValueError) as error:
            self.fault(folder, f"cannot be read: {getattr(error, 'strerror', None) or error}")
            return [], []
        for path in (folder / name for name in names):
            if path.name.startswith("."):
                self.ignored.append(path.relative_to(self.root))
            elif path.is_dir() and path.is_symlink():
                self.fault(path, "a link to a folder, which DVC does not follow; replace it by the folder")
            elif path.is_dir():
                folders.append(path)
            elif path.suffix.lower() not in SUFFIXES:
                self.ignored.append(path.relative_to(self.root))
            elif path.is_file():
                pictures.append(path)
            else:
                self.fault(path, "not a file, or a link that leads nowhere")
        return folders, pictures


def _class_faults(train: Classes, test: Classes) -> list[str]:
    faults = [f"{len(train)} classes, more than {MAX_CLASSES}"] if len(train) > MAX_CLASSES else []
    alike = defaultdict[str, list[str]](list)
    for name in sorted({*train, *(each for each in test if test[each])}, key=_natural):
        if reason := check_class_name(name):
            faults.append(f"class {shown(name)}: the name {reason}")
        folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
        alike[folded].append(shown(name))
        if (own := len(train.get(name, []))) < 2:
            faults.append(f"class {shown(name)}: {_count(own, 'training image')}; at least 2 are needed")
    same = [" and ".join(names) for names in alike.values() if len(names) > 1]
    return faults + [f"classes {each}: names differ only in case or Unicode normalisation" for each in same]


def _listed(root: Path, names: list[str], split: Classes) -> list[Picture]:
    labelled = [(path, label) for label, name in enumerate(names) for path in split.get(name, [])]
    labelled.sort(key=lambda each: (_natural(each[0].name), each[0].relative_to(root).as_posix()))
    return [Picture(*each) for each in labelled]


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", composed(name))  # text and digits alternate, so both sides compare equal types
    return [int(each) if index % 2 else each for index, each in enumerate(parts)], name


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
