import os
import socket
import unicodedata
from pathlib import Path

import pytest

from ddpm.ingest.folders import Picture, read_folder
from ddpm.pipeline.console import UserError


def made(root: Path, *names: str) -> Path:
    """`root` with empty files of these names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def two(*folders: str) -> list[str]:
    """Names of two pictures in each of `folders`."""
    return [f"{folder}/{name}.png" for folder in folders for name in "ab"]


def listed(root: Path, pictures: list[Picture] | None) -> list[tuple[str, int]]:
    assert pictures is not None
    return [(path.relative_to(root).as_posix(), label) for path, label in pictures]


def faults(root: Path) -> list[str]:
    """The faults of `root`, of which the first line tells the number."""
    with pytest.raises(UserError) as caught:
        read_folder(root)
    first, *lines = str(caught.value).split("\n")
    assert all(line.startswith("  ") and line.isprintable() for line in lines)
    assert first.isprintable()
    if not lines[-1].startswith("  and "):
        assert first.endswith(": 1 fault" if len(lines) == 1 else f": {len(lines)} faults")
    return [line.strip() for line in lines]


def test_each_folder_is_a_class(tmp_path: Path) -> None:
    root = made(tmp_path, "dog/2.png", "dog/deep/er/1.JPG", "cat/1.png", "cat/3.WebP", "cat/3.bmp", "dog/4.gif")
    folder = read_folder(root)
    assert folder.classes == ("cat", "dog")
    assert listed(root, folder.train) == [
        ("dog/deep/er/1.JPG", 1),
        ("cat/1.png", 0),
        ("dog/2.png", 1),
        ("cat/3.WebP", 0),
        ("cat/3.bmp", 0),
        ("dog/4.gif", 1),
    ]
    assert folder.test is None
    assert folder.ignored == []


def test_pictures_are_in_the_order_of_their_names_whatever_their_class(tmp_path: Path) -> None:
    names = ["b/0001.png", "a/0002.png", "a/0003.png", "b/0003.png", "b/0004.png", "a/0010.png", "b/x/0010.png"]
    root = made(tmp_path, *reversed(names))
    assert listed(root, read_folder(root).train) == [(name, int(name[0] == "b")) for name in names]


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    ordered = ("2", "010", "10", "A3", "Z", "a2", "a2b1", "a2b10", "a10", "y", "ä")
    root = made(tmp_path, *two(*sorted(ordered)))
    folder = read_folder(root)
    assert folder.classes == ordered
    assert ("a10/b.png", 8) in listed(root, folder.train)


def test_train_and_test_have_the_same_classes(tmp_path: Path) -> None:
    root = made(tmp_path, *two("train/a", "train/b", "train/c"), "test/c/9.png", "test/a/deep/1.png", "test/b/x.txt")
    (root / "test/empty").mkdir()
    folder = read_folder(root)
    assert folder.classes == ("a", "b", "c")
    assert listed(root, folder.train) == [(f"train/{c}/{p}.png", "abc".index(c)) for p in "ab" for c in "abc"]
    assert listed(root, folder.test) == [("test/a/deep/1.png", 0), ("test/c/9.png", 2)]
    assert folder.ignored == [Path("test/b/x.txt")]


def test_train_alone_leaves_test_open(tmp_path: Path) -> None:
    folder = read_folder(made(tmp_path, *two("train/a", "train/b")))
    assert folder.classes == ("a", "b")
    assert len(folder.train) == 4
    assert folder.test is None


@pytest.mark.parametrize("split", ["", "train/"])
def test_pictures_in_no_folder_are_one_class_named_as_the_whole(tmp_path: Path, split: str) -> None:
    root = made(tmp_path / "faces", f"{split}2.png", f"{split}1.png", f"{split}notes/x.txt")
    folder = read_folder(root)
    assert folder.classes == ("faces",)
    assert listed(root, folder.train) == [(f"{split}1.png", 0), (f"{split}2.png", 0)]
    assert folder.test is None
    assert folder.ignored == [Path(f"{split}notes/x.txt")]


def test_train_and_test_may_be_of_one_class_both(tmp_path: Path) -> None:
    root = made(tmp_path / "faces", "train/1.png", "train/2.png", "test/3.png")
    folder = read_folder(root)
    assert folder.classes == ("faces",)
    assert listed(root, folder.test) == [("test/3.png", 0)]


def test_the_working_folder_is_named_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "faces", "1.png", "2.png")
    monkeypatch.chdir(tmp_path / "faces")
    folder = read_folder(Path("."))
    assert folder.classes == ("faces",)
    assert folder.train == [(Path("1.png"), 0), (Path("2.png"), 0)]


def test_what_is_no_picture_is_listed_and_what_is_hidden_is_not(tmp_path: Path) -> None:
    hidden = [".DS_Store", ".git/a.png", "a/.b.png", "a/Thumbs.db", "thumbs.DB", "a/.cache/c.png"]
    ignored = ["a/png", "a/x.tiff", "labels.csv", "a/deep/README"]
    root = made(tmp_path, *two("a"), *hidden, *ignored)
    (root / "a/gone").symlink_to("nowhere")
    folder = read_folder(root)
    assert folder.classes == ("a",)
    assert len(folder.train) == 2
    assert folder.ignored == [Path(each) for each in ("a/deep/README", "a/gone", "a/png", "a/x.tiff", "labels.csv")]


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    made(tmp_path, "file")
    root = made(tmp_path / "root", "a/1.png")
    (root / "a/2.png").symlink_to(tmp_path / "file")
    assert listed(root, read_folder(root).train) == [("a/1.png", 0), ("a/2.png", 0)]


def test_links_to_folders_are_faults_for_dvc_does_not_follow_them(tmp_path: Path) -> None:
    root = made(tmp_path, *two("a", "b"))
    (root / "b/loop").symlink_to(root)
    (root / "other").symlink_to(root / "a")
    (root / "c.png").symlink_to("c.png")
    says = "a link to a folder, into which DVC does not look; put the folder itself there"
    assert faults(root) == [
        "c.png: cannot be read: Too many levels of symbolic links",
        f"other: {says}",
        f"b/loop: {says}",
    ]


def test_a_missing_folder_is_a_fault(tmp_path: Path) -> None:
    made(tmp_path, "file")
    assert faults(tmp_path / "no") == ["cannot be read: No such file or directory"]
    assert faults(tmp_path / "file") == ["cannot be read: Not a directory"]
    reasons = ["embedded null byte", "listdir: embedded null character in path"]  # of Python 3.11, and of 3.13
    assert faults(tmp_path / "nul\0") in [[f"cannot be read: {reason}"] for reason in reasons]
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path / "no")
    assert str(caught.value).split("\n")[0] == f"{tmp_path / 'no'}: 1 fault"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "no pictures (png, jpg, jpeg, webp, bmp, gif)"),
        (["a/x.txt", ".a/x.png"], "no pictures (png, jpg, jpeg, webp, bmp, gif)"),
        (["train/a/x.txt"], "train: no pictures"),
    ],
)
def test_a_folder_without_pictures_is_a_fault(tmp_path: Path, names: list[str], reason: str) -> None:
    root = made(tmp_path / "root", *names)
    root.mkdir(exist_ok=True)
    assert faults(root) == [reason]


def test_a_class_needs_two_training_pictures(tmp_path: Path) -> None:
    root = made(tmp_path, *two("a"), "b/1.png", "c/x.txt")
    assert faults(root) == [
        "class b: 1 training picture; it needs 2 to train on",
        "class c: 0 training pictures; it needs 2 to train on",
    ]
    assert faults(made(tmp_path / "one", "1.png")) == ["class one: 1 training picture; it needs 2 to train on"]


def test_a_class_of_test_pictures_alone_is_a_fault(tmp_path: Path) -> None:
    root = made(tmp_path, *two("train/a", "test/b"), "train/c/1.png", "test/c/1.png")
    assert faults(root) == [
        "class b: 0 training pictures and 2 test pictures; it needs 2 to train on",
        "class c: 1 training picture and 1 test picture; it needs 2 to train on",
    ]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Test", "testing", "VAL"])
def test_another_name_for_test_is_a_fault(tmp_path: Path, name: str) -> None:
    assert faults(made(tmp_path, *two("train/a", f"{name}/a"))) == [f"{name}: rename it to test"]


def test_other_names_for_train_are_faults(tmp_path: Path) -> None:
    assert faults(made(tmp_path / "1", *two("Train/a", "test/a"))) == ["Train: rename it to train"]
    both = ["training: rename it to train", "validation: rename it to test"]
    assert faults(made(tmp_path / "2", *two("training/a", "validation/a"))) == both
    assert faults(made(tmp_path / "3", *two("test/a"))) == ["a folder test without a folder train"]


def test_valid_is_a_class_among_others(tmp_path: Path) -> None:
    assert read_folder(made(tmp_path, *two("valid", "invalid"))).classes == ("invalid", "valid")


def test_pictures_beside_train_and_test_are_faults(tmp_path: Path) -> None:
    root = made(tmp_path, *two("train/a", "test/a", "val/a", "more"), "x.png", "notes/x.txt")
    away = "holds pictures beside train and test, which are never classes; move it away or into one of them"
    assert faults(root) == [
        "1 picture outside of the folders train and test",
        f"more: {away}",
        f"val: {away}",
    ]


def test_pictures_beside_folders_of_classes_are_faults(tmp_path: Path) -> None:
    assert faults(made(tmp_path / "1", *two("a"), "x.png", "y.png")) == [
        "2 pictures beside the folders of classes, in none of them"
    ]
    root = made(tmp_path / "2", *two("train/a", "test/a"), "train/x.png", "test/x.png")
    assert faults(root) == [
        "test: 1 picture beside the folders of classes, in none of them",
        "train: 1 picture beside the folders of classes, in none of them",
    ]


def test_train_and_test_that_do_not_match_are_faults(tmp_path: Path) -> None:
    flat = made(tmp_path / "1", *two("train/a"), "test/x.png")
    assert faults(flat) == ["test: no folders of classes, where train has them"]
    empty = made(tmp_path / "2", *two("train/a"), "test/x.txt")
    assert faults(empty) == ["test: no pictures"]
    untrained = made(tmp_path / "3", *two("test/a"), "train/x.txt")
    assert faults(untrained) == ["train: no pictures"]


def test_what_only_looks_like_a_picture_is_a_fault(tmp_path: Path) -> None:
    root = made(tmp_path, *two("a"))
    os.mkfifo(root / "a/fifo.png")
    os.mkfifo(root / "a/fifo")
    (root / "a/gone.png").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "a/socket.jpg"))  # short, as such names must be
    assert faults(root) == [
        "a/fifo.png: not a file",
        "a/gone.png: cannot be read: No such file or directory",
        "a/socket.jpg: not a file",
    ]


def test_a_folder_that_cannot_be_read_is_one_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = made(tmp_path, *two("a", "b", "c/deep"))
    listdir = os.listdir

    def refuse(path: Path) -> list[str]:
        if path.name in ("b", "deep", "test"):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert faults(root) == ["b: cannot be read: Permission denied", "c/deep: cannot be read: Permission denied"]
    assert faults(made(tmp_path / "2", *two("train/a", "test/a"))) == ["test: cannot be read: Permission denied"]


ACUTE = "é"


def test_names_that_differ_only_in_case_or_normalisation_are_faults(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", ACUTE)
    root = made(tmp_path, *two("Cat", "cat", "CAT", "dog", ACUTE, decomposed))
    assert faults(root) == [
        "classes CAT and Cat and cat: the names differ only in case or Unicode normalisation",
        f"classes {decomposed} and {ACUTE}: the names differ only in case or Unicode normalisation",
    ]


def test_accents_in_another_order_make_no_other_name(tmp_path: Path) -> None:
    names = ["\N{GREEK SMALL LETTER ALPHA}\u0345\u0301", "\N{GREEK SMALL LETTER ALPHA WITH OXIA AND YPOGEGRAMMENI}"]
    same = "the names differ only in case or Unicode normalisation"
    assert faults(made(tmp_path, *two(*names))) == [f"classes {names[0]} and {names[1]}: {same}"]


def test_names_are_compared_between_train_and_test(tmp_path: Path) -> None:
    assert faults(made(tmp_path, *two("train/cat", "test/Cat"))) == [
        "class Cat: 0 training pictures and 2 test pictures; it needs 2 to train on",
        "classes Cat and cat: the names differ only in case or Unicode normalisation",
    ]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    root = made(
        tmp_path, *two("train/con", "train/a", "val/b"), "train/c/1.png", "train/x.png", os.fsdecode(b"\xff.png")
    )
    made(root, *two("train/line\nbreak", os.fsdecode(b"train/\xff")))
    assert faults(root) == [
        "1 picture outside of the folders train and test",
        "val: rename it to test",
        "train: 1 picture beside the folders of classes, in none of them",
        "class c: 1 training picture; it needs 2 to train on",
        "class con: the name is reserved",
        r"class line\nbreak: the name has unprintable characters, or is not valid UTF-8",
        r"class \udcff: the name has unprintable characters, or is not valid UTF-8",
    ]


def test_of_many_faults_fifty_are_told(tmp_path: Path) -> None:
    root = made(tmp_path / "root", *(f"c{i}/1.png" for i in range(53)))
    with pytest.raises(UserError) as caught:
        read_folder(root)
    lines = str(caught.value).split("\n")
    assert lines[0] == f"{root}: 53 faults"
    assert lines[1] == "  class c0: 1 training picture; it needs 2 to train on"
    assert lines[50] == "  class c49: 1 training picture; it needs 2 to train on"
    assert lines[51:] == ["  and 3 more"]
    (root / "c7/2.png").touch()
    made(root, *(f"c{i}/2.png" for i in range(3)))
    assert len(faults(root)) == 49
    (root / "c7/2.png").unlink()
    assert len(faults(root)) == 50


def test_more_than_a_thousand_classes_are_a_fault(tmp_path: Path) -> None:
    root = made(tmp_path, *two(*(f"c{i}" for i in range(1000))))
    assert len(read_folder(root).classes) == 1000
    made(root, *two("other"))
    assert faults(root) == ["1001 classes, and at most 1000 can be"]
