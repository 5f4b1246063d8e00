"""List the images of a folder and their classes.

Each class has a folder with images at any depth. Images directly in the folder form one class, named like the folder.
Both layouts may instead lie below train/ and test/.
"""

import os
import re
import stat
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from ddpm.images.card import MAX_CLASSES, check_class_name, composed
from ddpm.ingest.decoding import Levels
from exact_stages.console import UserError, shown

Classes = dict[str, list[Path]]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
READ = "png, jpg, jpeg, webp, bmp or gif"
OF_SYSTEMS = (".ds_store", "thumbs.db")  # in any folder, and not worth a word
FAULTS = 50  # faults in one message
TRAIN = {"train", "training"}
TEST = {"test", "testing", "val", "valid", "validation"}


class Picture(NamedTuple):
    """A source image, as a file or as grey levels (H, W), and its label."""

    source: Path | Levels
    label: int


class Folder(NamedTuple):
    """The images of a folder.

    classes: the class names in natural order: digits by value, other characters by code point; "010" before "10".
    train, test: images in natural order of file names, then by path; test is None if there is no test folder.
    ignored: hidden files and folders, and files with other suffixes than SUFFIXES, relative to the folder.
    """

    classes: tuple[str, ...]
    train: list[Picture]
    test: list[Picture] | None
    ignored: list[Path]

    @property
    def pictures(self) -> list[Picture]:
        """Return the training images, then the test images."""
        return [*self.train, *(self.test or [])]


def read_folder(root: Path) -> Folder:
    """List the images below `root`, except hidden ones.

    Raises:
        UserError: the folder has faults; the message has one line for each.
    """
    scan = _Scan(root)
    train, test = scan.splits()
    if not scan.faults and not any([*train.values(), *(test or {}).values()]):
        scan.fault(root, f"no images ({of_ignored(scan.ignored) or READ})")
    else:
        scan.faults += _class_faults(train, test or {}, scan)
    if scan.faults:
        more = [f"and {len(scan.faults) - FAULTS} more"] if len(scan.faults) > FAULTS else []
        first = f"{shown(str(root))}: {_count(len(scan.faults), 'fault')}"
        raise UserError("\n  ".join([first, *scan.faults[:FAULTS], *more]))
    names = sorted(train, key=_natural)
    tested = None if test is None else _listed(root, names, test)
    return Folder(tuple(map(composed, names)), _listed(root, names, train), tested, sorted(scan.ignored))


def of_ignored(files: list[Path]) -> str:
    """Describe ignored files in one line; empty if there are none."""
    such = f"{_count(len(files), 'file')}, such as {shown(min(files).as_posix())}" if files else ""
    return such and f"ignored, hidden or not {READ}: {such}"


class _Scan:
    """A scan of a folder, which collects faults and ignored files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.flat = Path(os.path.abspath(root)).name  # the class of images outside of class folders
        self.faults: list[str] = []
        self.ignored: list[Path] = []
        self.unread: set[str] = set()  # the names in paths of unreadable folders

    def fault(self, path: Path, reason: str) -> None:
        where = "" if path == self.root else f"{shown(path.relative_to(self.root).as_posix())}: "
        self.faults.append(where + reason)

    def passed_over(self, *folders: str) -> str:
        """Describe the ignored files below these folders, in parentheses; empty if there are none."""
        note = of_ignored([each for each in self.ignored if any(map(each.is_relative_to, folders))])
        return note and f" ({note})"

    def splits(self) -> tuple[Classes, Classes | None]:
        """Return training and test images by class; the latter are None if there is no test folder."""
        folders, pictures = self.level(self.root)
        known = {each.name: each for each in folders}
        words = {each.casefold() for each in known}
        if not words & {"train", "test"} and not (words and words <= TRAIN | TEST):
            return self.classes(self.root, folders, pictures), None
        if pictures:
            self.fault(self.root, f"{_count(len(pictures), 'image')} outside of train and test; move them into one")
        for name, folder in known.items():
            split = "train" if name.casefold() in TRAIN else "test" if name.casefold() in TEST else ""
            if split and split not in known:
                self.fault(folder, f"rename it to {split}")
            elif name not in ("train", "test") and self.below(folder):
                self.fault(
                    folder,
                    "has images but is neither train nor test; move it into one of them, or away",
                )
        if not words & TRAIN:
            self.fault(self.root, "test without train; add a folder train")
        both = [each for each in folders if each.name in ("train", "test")]
        read = {each.name: self.classes(each, *self.level(each)) for each in both}
        train, test = read.get("train", {}), read.get("test")
        for name, classes in read.items():
            if not any(classes.values()) and name not in self.unread:
                self.fault(known[name], "no images" + self.passed_over(name))
        if test and train and [*test] == [self.flat] and self.flat not in train:
            self.fault(known["test"], "no class folders, although train has them")
            test = {}
        return train, test

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
            self.unread.update(folder.relative_to(self.root).parts)
            return [], []
        for path in (folder / name for name in names if name.casefold() not in OF_SYSTEMS):
            if path.name.startswith("."):
                self.ignored.append(path.relative_to(self.root))
                continue
            try:
                mode, reason = path.stat().st_mode, "not a file"
            except OSError as error:
                mode, reason = 0, f"cannot be read: {error.strerror}"
            if stat.S_ISDIR(mode) and path.is_symlink():
                self.fault(path, "a link to a folder, which DVC does not follow; replace it by the folder")
            elif stat.S_ISDIR(mode):
                folders.append(path)
            elif path.suffix.lower() not in SUFFIXES and (mode or path.is_symlink()):
                self.ignored.append(path.relative_to(self.root))
            elif stat.S_ISREG(mode):
                pictures.append(path)
            else:
                self.fault(path, reason)
        return folders, pictures


def _class_faults(train: Classes, test: Classes, scan: _Scan) -> list[str]:
    faults = [f"{len(train)} classes, more than {MAX_CLASSES}"] if len(train) > MAX_CLASSES else []
    alike = defaultdict[str, list[str]](list)
    for name in sorted({*train, *(each for each in test if test[each])}, key=_natural):
        if reason := check_class_name(name):
            faults.append(f"class {shown(name)}: the name {reason}")
        folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
        alike[folded].append(shown(name))
        own = len(train.get(name, []))
        if own < 2 and any(train.values()) and name not in scan.unread:
            others = f" and {_count(len(test[name]), 'test image')}" if test.get(name) else ""
            found = _count(own, "training image") + scan.passed_over(name, f"train/{name}")
            faults.append(f"class {shown(name)}: {found}{others}; at least 2 are needed")
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
