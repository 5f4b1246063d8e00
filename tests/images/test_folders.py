"""Which pictures a folder holds, of which classes, and all that may be wrong with it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ddpm.images.folders import Picture, read_folder
from exact_stages.console import UserError


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def two(*folders: str) -> list[str]:
    return [f"{folder}/{name}.png" for folder in folders for name in "ab"]


def listed(root: Path, pictures: Sequence[Picture]) -> list[tuple[str, int]]:
    return [(str(path).removeprefix(f"{root}/"), label) for path, label in pictures]


def faults(root: Path) -> list[str]:
    """Where the faults of `root` are, each a line of its own: what stands before the colon."""
    with pytest.raises(UserError) as caught:
        read_folder(root)
    first, *lines = (line for line in str(caught.value).split("\n") if not line.startswith("  ignored, "))
    assert first.startswith(str(root))
    assert all(line.startswith("  ") and line.isprintable() for line in lines)
    return [line.strip().split(": ")[0] for line in lines]


def test_each_folder_is_a_class(tmp_path: Path) -> None:
    root = made(tmp_path, "dog/2.png", "dog/deep/er/1.JPG", "cat/1.png", "cat/3.WebP", "cat/3.bmp", "dog/4.gif")
    folder = read_folder(root)
    assert folder.classes == ("cat", "dog")
    assert listed(root, folder.pictures) == [  # in the order of their names, whatever their class
        ("dog/deep/er/1.JPG", 1),
        ("cat/1.png", 0),
        ("dog/2.png", 1),
        ("cat/3.WebP", 0),
        ("cat/3.bmp", 0),
        ("dog/4.gif", 1),
    ]
    assert (folder.tested, folder.ignored) == (0, [])


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    ordered = ("2", "010", "10", "A3", "Z", "a2", "a2b1", "a2b10", "a10", "y", "ä")
    assert read_folder(made(tmp_path, *two(*sorted(ordered)))).classes == ordered


def test_train_and_test_have_the_same_classes(tmp_path: Path) -> None:
    root = made(tmp_path, *two("train/a", "train/b", "train/c"), "test/c/9.png", "test/a/deep/1.png", "test/b/x.txt")
    folder = read_folder(root)
    assert folder.classes == ("a", "b", "c")
    train = [(f"train/{c}/{p}.png", "abc".index(c)) for p in "ab" for c in "abc"]
    assert listed(root, folder.pictures) == [*train, ("test/a/deep/1.png", 0), ("test/c/9.png", 2)]
    assert folder.ignored == [Path("test/b/x.txt")]
    assert folder.tested == 2


def test_pictures_in_no_folder_are_one_class_named_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = made(tmp_path / "faces", "train/2.png", "train/1.png", "train/notes/x.txt")
    folder = read_folder(root)
    assert listed(root, folder.pictures) == [("train/1.png", 0), ("train/2.png", 0)]
    assert folder.ignored == [Path("train/notes/x.txt")]
    monkeypatch.chdir(root)
    assert read_folder(Path(".")).classes == ("faces",)


def test_what_is_no_picture_is_listed_and_so_is_what_is_hidden(tmp_path: Path) -> None:
    ignored = ["a/png", "a/x.psd", "a/labels.csv", "a/deep/README", "a/.b.png"]
    root = made(tmp_path, *two("a", ".net", "a/.cache"), *ignored)
    folder = read_folder(root)
    assert (folder.classes, len(folder.pictures)) == (("a",), 2)
    assert folder.ignored == sorted(map(Path, [*ignored, ".net", "a/.cache"]))


def test_links_to_files_are_followed_and_links_to_folders_are_faults_since_dvc_does_not(tmp_path: Path) -> None:
    made(tmp_path, "file")
    root = made(tmp_path / "root", "a/1.png")
    (root / "a/2.png").symlink_to(tmp_path / "file")
    assert listed(root, read_folder(root).pictures) == [("a/1.png", 0), ("a/2.png", 0)]
    (root / "a/loop").symlink_to(root)
    assert faults(root) == ["a/loop"]


@pytest.mark.parametrize(
    ("names", "places"),
    [
        pytest.param([], ["no images (png, jpg, jpeg, webp, bmp, gif, tif or tiff)"], id="nothing"),
        pytest.param([*two("a"), "b/1.png", "c/x.txt"], ["class b", "class c"], id="a class of fewer than two"),
        pytest.param([*two("Training/a", "valid/a")], ["Training", "valid"], id="other names"),
        pytest.param(
            [*two("train/a", "test/a", "more"), "x.png", "notes/x.txt"],
            ["more", "1 image outside of train and test; move them into one"],
            id="pictures beside train and test",
        ),
        pytest.param(two("train/cat", "test/Cat"), ["class Cat"], id="case in train and test"),
        pytest.param(two("train/cat", "train/Cat"), ["class cat"], id="names that differ in case"),
        pytest.param([*two("train/a"), "test/a/x.txt"], ["test"], id="an empty test folder"),
        pytest.param([*two("a", "x\ny"), "c/1.png"], ["class c", r"class x\ny"], id="all at once"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told_by_its_place(tmp_path: Path, names: list[str], places: list[str]) -> None:
    (tmp_path / "root").mkdir()
    assert faults(made(tmp_path / "root", *names)) == places
