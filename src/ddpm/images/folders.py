"""List the images of a folder and their classes.

Each class has a folder with images at any depth. Images directly in the folder form one class, named like the folder.
Or a table of labels beside the images names the class of each. All layouts may instead lie below train/ and test/.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ddpm.images.card import MAX_CLASSES, check_class_name, composed
from ddpm.images.decoding import Levels, Values
from ddpm.images.tables import TABLES, read_table
from exact_stages.console import UserError, shown

Classes = dict[str, list[Path]]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
READ = "png, jpg, jpeg, webp, bmp, gif, tif or tiff"
FAULTS = 50  # faults in one message
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}  # no names of classes


class Picture(NamedTuple):
    """A source image, as a file or as levels or 16-bit values (H, W) or (H, W, 3), and its label."""

    source: Path | Levels | Values
    label: int


class Mapped(Sequence[Picture]):
    """The images of arrays, mapped or in memory, (N, H, W) or (N, H, W, 3), and labels (N,), made when asked for.

    A list of ten million would take gigabytes.
    """

    def __init__(self, *parts: tuple[Values, Values]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(len(labels) for _, labels in self.parts)

    def __getitem__(self, index: int) -> Picture:  # type: ignore[override]  # no slices
        for levels, labels in self.parts:
            if index < len(labels):
                return Picture(levels[index], int(labels[index]))
            index -= len(labels)
        raise IndexError(index)


class Folder(NamedTuple):
    """The images of a folder.

    classes: the class names in natural order: digits by value, other characters by code point; "010" before "10".
    pictures: training images, then those of the folder's own test/; each in natural order of file names, then by path.
    tested: the number of images of test/, 0 if there is no such folder.
    ignored: hidden files and folders, and files with other suffixes than SUFFIXES, relative to the folder.
    beside: further files that were read, such as a table of labels.
    """

    classes: tuple[str, ...]
    pictures: Sequence[Picture]
    tested: int
    ignored: list[Path]
    beside: list[Path]

    @property
    def files(self) -> list[Path]:
        """Return all files that were read in the folder."""
        return self.beside + [each.source for each in self.pictures if isinstance(each.source, Path)]


def read_folder(root: Path, least: int = 2) -> Folder:
    """List the images below `root`, except hidden ones; a class needs `least` training images.

    Raises:
        UserError: the folder has faults; the message has one line for each.
    """
    scan = _Scan(root)
    train, test = scan.splits()
    for path in scan.rows:
        scan.fault(root, f"{shown(str(path))}: a row of the table of labels, but no image; remove the row")
    if not train and not scan.faults:
        scan.fault(root, f"no images ({READ})")
    counts, tests = ({name: len(files) for name, files in split.items()} for split in (train, test))
    if faults := scan.faults or class_faults(counts, tests, least):
        ignored = [of_ignored(scan.ignored)] if scan.ignored else []
        raise faulty(f"{shown(str(root))}: {_count(len(faults), 'fault')}", faults, ignored)
    names = sorted(train, key=_natural)
    tested = _listed(root, names, test)
    pictures = _listed(root, names, train) + tested
    return Folder(tuple(map(composed, names)), pictures, len(tested), sorted(scan.ignored), scan.tables)


def faulty(first: str, faults: Sequence[str], last: Sequence[str] = ()) -> UserError:
    """Return an error that has a line for each fault, at most FAULTS, between its first and last lines."""
    more = [f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
    return UserError("\n  ".join([first, *faults[:FAULTS], *more, *last]))


def of_ignored(files: list[Path]) -> str:
    """Describe ignored files in one line."""
    such = f"{_count(len(files), 'file')}, such as {shown(min(files).as_posix())}"
    return f"ignored, hidden or not {READ}: {such}"


class _Scan:
    """A scan of a folder, which collects faults and ignored files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults: list[str] = []
        self.ignored: list[Path] = []
        self.tables: list[Path] = []
        self.rows: dict[Path, str] = {}  # the labels of images in tables, until the image is found

    def fault(self, path: Path, reason: str) -> None:
        where = "" if path == self.root else f"{shown(path.relative_to(self.root).as_posix())}: "
        self.faults.append(where + reason)

    def splits(self) -> tuple[Classes, Classes]:
        """Return training and test images by class; the latter are empty if there is no test folder."""
        folders, pictures = self.level(self.root)
        tabled = self.table(self.root)
        words = {each.name.casefold() for each in folders}
        if not words & {"train", "test"} and not (words and words <= SPLITS):
            return self.classes(self.root, folders, pictures, tabled), {}
        sides: dict[str, Classes] = {"train": {}, "test": {}}
        for folder in folders:
            if folder.name in sides:
                sides[folder.name] = self.classes(folder, *self.level(folder), self.table(folder) or tabled)
                if not any(sides[folder.name].values()):
                    self.fault(folder, "no images")
            elif self.below(folder):
                self.fault(folder, "has images but is neither train nor test; rename it to one of them, or move it")
        if pictures:
            self.fault(self.root, f"{_count(len(pictures), 'image')} outside of train and test; move them into one")
        return sides["train"], sides["test"]

    def table(self, folder: Path) -> bool:
        """Read the table of labels in a folder, and return whether there is one."""
        found = [folder / name for name in TABLES if (folder / name).is_file()]
        for path in found:
            self.rows |= read_table(path)
            self.tables.append(path)
            self.ignored.remove(path.relative_to(self.root))
        if found[1:]:
            self.fault(folder, f"has {' and '.join(each.name for each in found)}; keep one table of labels")
        return bool(found)

    def classes(self, folder: Path, folders: list[Path], pictures: list[Path], tabled: bool) -> Classes:
        """Return the images of a folder by class; `folders` and `pictures` lie directly in it."""
        if tabled:
            labelled = defaultdict[str, list[Path]](list)
            for path in [*pictures, *(each for inner in folders for each in self.below(inner))]:
                if path in self.rows:
                    labelled[self.rows.pop(path)].append(path)
                else:
                    self.fault(path, "has no row in the table of labels; add one")
            return labelled
        classes = {each.name: self.below(each) for each in folders}
        if pictures and any(classes.values()):
            self.fault(folder, f"{_count(len(pictures), 'image')} outside of the class folders; move them into one")
        return classes if any(classes.values()) or not pictures else {self.root.absolute().name: pictures}

    def below(self, folder: Path) -> list[Path]:
        """Return the images below `folder`, at any depth."""
        folders, pictures = self.level(folder)
        return pictures + [path for each in folders for path in self.below(each)]

    def level(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Return the folders and images directly in `folder`, and record other files."""
        folders, pictures = list[Path](), list[Path]()
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                self.ignored.append(path.relative_to(self.root))
            elif path.is_dir() and path.is_symlink():
                self.fault(path, "a link to a folder, which DVC does not follow; replace it by the folder")
            elif path.is_dir():
                folders.append(path)
            elif path.suffix.lower() in SUFFIXES:
                pictures.append(path)
            else:
                self.ignored.append(path.relative_to(self.root))
        return folders, pictures


def class_faults(train: Mapping[str, int], test: Mapping[str, int], least: int) -> list[str]:
    """Say what is wrong with classes, given the number of images of each."""
    faults = [f"{len(train)} classes, more than {MAX_CLASSES}"] if len(train) > MAX_CLASSES else []
    for name in sorted({*train, *(each for each in test if test[each])}, key=_natural):
        if reason := check_class_name(name):
            faults.append(f"class {shown(name)}: the name {reason}")
        if (own := train.get(name, 0)) < least:
            faults.append(f"class {shown(name)}: {_count(own, 'training image')}; at least {least} are needed")
    for name, count in Counter(composed(each).casefold() for each in train).items():
        if count > 1:
            faults.append(f"class {shown(name)}: {count} classes have this name but for case or Unicode; rename one")
    return faults


def _listed(root: Path, names: list[str], split: Classes) -> list[Picture]:
    labelled = [(path, label) for label, name in enumerate(names) for path in split.get(name, [])]
    labelled.sort(key=lambda each: (_natural(each[0].name), each[0].relative_to(root).as_posix()))
    return [Picture(*each) for each in labelled]


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", composed(name))  # text and digits alternate, so both sides compare equal types
    return [int(each) if index % 2 else each for index, each in enumerate(parts)], name


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
