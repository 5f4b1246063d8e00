"""Which pictures a folder holds, and of which classes.

They lie in one folder for each class, at any depth, or right in the folder, being of one class, named as it; in both
cases perhaps in train/ and test/ instead.
"""

import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

from ddpm.images.card import MAX_CLASSES, check_class_name
from ddpm.ingest.decoding import Levels
from ddpm.pipeline.console import UserError, shown

Classes = dict[str, list[Path]]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
FAULTS = 50  # that are named
TRAIN = {"train", "training"}
TEST = {"test", "testing", "val", "valid", "validation"}


class Picture(NamedTuple):
    """A picture, as a file or as grey levels (H, W), and the index of its class."""

    source: Path | Levels
    label: int


class Folder(NamedTuple):
    """The pictures of a folder.

    classes: in natural order: runs of digits by value, the rest by code point; "010" before "10".
    train, test: by file name, in natural order too, then by path; test is None without a test folder.
    ignored: the files that by their suffix are no pictures, relative to the folder.
    """

    classes: tuple[str, ...]
    train: list[Picture]
    test: list[Picture] | None
    ignored: list[Path]

    @property
    def pictures(self) -> list[Picture]:
        """Those to train on, then those to test."""
        return [*self.train, *(self.test or [])]


def read_folder(root: Path) -> Folder:
    """The pictures that `root` holds; hidden files and Thumbs.db are passed over.

    Raises:
        UserError: all faults, one a line.
    """
    scan = _Scan(root)
    train, test = scan.splits()
    if not scan.faults and not any([*train.values(), *(test or {}).values()]):
        scan.fault(root, f"no pictures ({', '.join(each[1:] for each in SUFFIXES)})")
    else:
        scan.faults += _class_faults(train, test or {}, scan.unread)
    if scan.faults:
        more = [f"and {len(scan.faults) - FAULTS} more"] if len(scan.faults) > FAULTS else []
        first = f"{shown(str(root))}: {_count(len(scan.faults), 'fault')}"
        raise UserError("\n  ".join([first, *scan.faults[:FAULTS], *more]))
    classes = tuple(sorted(train, key=_natural))
    tested = None if test is None else _listed(root, classes, test)
    return Folder(classes, _listed(root, classes, train), tested, sorted(scan.ignored))


class _Scan:
    """A walk through a folder: what it meets besides pictures, and what is wrong."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.flat = Path(os.path.abspath(root)).name  # the class of pictures in no folder of a class
        self.faults: list[str] = []
        self.ignored: list[Path] = []
        self.unread: set[str] = set()  # the names in the paths of folders that were not read

    def fault(self, path: Path, reason: str) -> None:
        where = "" if path == self.root else f"{shown(path.relative_to(self.root).as_posix())}: "
        self.faults.append(where + reason)

    def splits(self) -> tuple[Classes, Classes | None]:
        """The pictures by class for training and for testing, None without a test folder."""
        folders, pictures = self.level(self.root)
        known = {each.name: each for each in folders}
        words = {each.casefold() for each in known}
        if not words & {"train", "test"} and not (words and words <= TRAIN | TEST):
            return self.classes(self.root, folders, pictures), None
        if pictures:
            self.fault(self.root, f"{_count(len(pictures), 'picture')} outside of the folders train and test")
        for name, folder in known.items():
            split = "train" if name.casefold() in TRAIN else "test" if name.casefold() in TEST else ""
            if split and split not in known:
                self.fault(folder, f"rename it to {split}")
            elif name not in ("train", "test") and self.below(folder):
                self.fault(
                    folder,
                    "holds pictures beside train and test, which are never classes; move it away or into one of them",
                )
        if not words & TRAIN:
            self.fault(self.root, "a folder test without a folder train")
        both = [each for each in folders if each.name in ("train", "test")]
        read = {each.name: self.classes(each, *self.level(each)) for each in both}
        train, test = read.get("train", {}), read.get("test")
        for name, classes in read.items():
            if not any(classes.values()) and name not in self.unread:
                self.fault(known[name], "no pictures")
        if test and train and [*test] == [self.flat] and self.flat not in train:
            self.fault(known["test"], "no folders of classes, where train has them")
            test = {}
        return train, test

    def classes(self, folder: Path, folders: list[Path], pictures: list[Path]) -> Classes:
        """The pictures by class of a folder with `folders` and `pictures` right in it."""
        classes = {each.name: self.below(each) for each in folders}
        if pictures and any(classes.values()):
            self.fault(folder, f"{_count(len(pictures), 'picture')} beside the folders of classes, in none of them")
        elif pictures:
            return {self.flat: pictures}
        return classes

    def below(self, folder: Path) -> list[Path]:
        """The pictures in `folder` at any depth."""
        found, waiting = [], [folder]
        while waiting:
            folders, pictures = self.level(waiting.pop())
            waiting += folders
            found += pictures
        return found

    def level(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and pictures right in `folder`, by name; what else is there is noted."""
        folders, pictures = list[Path](), list[Path]()
        try:
            names = sorted(os.listdir(folder))
        except (OSError, ValueError) as error:
            self.fault(folder, f"cannot be read: {getattr(error, 'strerror', None) or error}")
            self.unread.update(folder.relative_to(self.root).parts)
            return [], []
        for path in (folder / name for name in names if not (name.startswith(".") or name.casefold() == "thumbs.db")):
            try:
                mode, reason = path.stat().st_mode, "not a file"
            except OSError as error:
                mode, reason = 0, f"cannot be read: {error.strerror}"
            if stat.S_ISDIR(mode) and path.is_symlink():
                self.fault(path, "a link to a folder, into which DVC does not look; put the folder itself there")
            elif stat.S_ISDIR(mode):
                folders.append(path)
            elif path.suffix.lower() not in SUFFIXES and (mode or path.is_symlink()):
                self.ignored.append(path.relative_to(self.root))
            elif stat.S_ISREG(mode):
                pictures.append(path)
            else:
                self.fault(path, reason)
        return folders, pictures


def _class_faults(train: Classes, test: Classes, unread: Container[str]) -> list[str]:
    faults = [f"{len(train)} classes, and at most {MAX_CLASSES} can be"] if len(train) > MAX_CLASSES else []
    alike = defaultdict[str, list[str]](list)
    for name in sorted({*train, *(each for each in test if test[each])}, key=_natural):
        if reason := check_class_name(name):
            faults.append(f"class {shown(name)}: the name {reason}")
        folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
        alike[folded].append(shown(name))
        own = len(train.get(name, []))
        if own < 2 and any(train.values()) and name not in unread:
            others = f" and {_count(len(test[name]), 'test picture')}" if test.get(name) else ""
            faults.append(f"class {shown(name)}: {_count(own, 'training picture')}{others}; it needs 2 to train on")
    same = [" and ".join(names) for names in alike.values() if len(names) > 1]
    return faults + [f"classes {each}: the names differ only in case or Unicode normalisation" for each in same]


def _listed(root: Path, classes: tuple[str, ...], split: Classes) -> list[Picture]:
    labelled = [(path, label) for label, name in enumerate(classes) for path in split.get(name, [])]
    labelled.sort(key=lambda each: (_natural(each[0].name), each[0].relative_to(root).as_posix()))
    return [Picture(*each) for each in labelled]


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", name)  # texts and digits in turn, so that like is compared with like
    return [int(each) if index % 2 else each for index, each in enumerate(parts)], name


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
