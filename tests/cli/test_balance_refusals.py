"""What the command refuses: before it draws, in one line, with nothing written."""

import re
from pathlib import Path
from typing import Any

import pytest

from ddpm.classifier.model import save_classifier
from ddpm.pipeline.console import UserError
from tests.balancing.small_set import COUNTS, TESTED, Files, classifier, saved_split, split, written
from tests.cli.generating import tiny_model
from tests.cli.test_balance import call, words
from tests.small import FRUITS

OTHERS = {
    "shape": FRUITS.model_copy(update={"shape": (3, 8, 16)}),
    "classes": FRUITS.model_copy(update={"classes": ("apple", "fig", "plum")}),
    "name": FRUITS.model_copy(update={"name": "other"}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return written(tmp_path_factory.mktemp("set"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def refusal(files: Files, place: Path, *options: object) -> str:
    with pytest.raises(UserError) as caught:
        call(files, place / "out", *options)
    assert [*place.iterdir()] == []
    return str(caught.value)


def other(kind: str, fact: str, folder: Path) -> Path:
    """A file of another data card."""
    card = OTHERS[fact]
    if kind == "model":
        return tiny_model(folder, class_conditional=True, data=card, counts=COUNTS)
    if kind == "classifier":
        save_classifier(folder / "other.safetensors", classifier(card))
        return folder / "other.safetensors"
    pictures = split(TESTED, 0)
    pictures = pictures._replace(images=pictures.images.reshape(-1, *card.shape))
    return saved_split(folder / "other.safetensors", pictures, card)


@pytest.mark.parametrize(
    ("kind", "fact"),
    [(kind, fact) for kind in ("test", "model", "classifier") for fact in ("shape", "classes")] + [("test", "name")],
)
def test_files_of_another_set_are_refused(kind: str, fact: str, files: Files, place: Path, tmp_path: Path) -> None:
    path = other(kind, fact, tmp_path)
    line = refusal(files._replace(**{kind: path}), place, *(["--test", path] if kind == "test" else []))
    ours, theirs = getattr(FRUITS, fact), getattr(OTHERS[fact], fact)
    assert line.startswith(f"{path}: its data card has {fact} {theirs}, where {files.data} has {ours}; give files")


@pytest.mark.parametrize("kind", ["model", "classifier"])
def test_a_name_may_be_another(kind: str, files: Files, place: Path, tmp_path: Path) -> None:
    path = other(kind, "name", tmp_path)
    call(files._replace(**{kind: path}), place / "out", "--target", 5)
    assert (place / "out/manifest.csv").exists()


@pytest.mark.parametrize("kind", ["data", "model", "classifier"])
def test_a_missing_file_is_named(kind: str, files: Files, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    options = ["--test", files.test] if kind == "data" else []
    assert refusal(files._replace(**{kind: path}), place, *options).startswith(f"{path}: no such file; ")


def test_missing_test_images_are_named(files: Files, place: Path, tmp_path: Path) -> None:
    alone = saved_split(tmp_path / "train.safetensors", split(COUNTS, 1))
    line = refusal(files._replace(data=alone), place)
    assert line.startswith(f"{tmp_path}/test.safetensors: no such file; ")


def test_training_images_are_not_for_testing(files: Files, place: Path) -> None:
    line = f"{files.data}: has the training images already; give those for testing with --test"
    assert refusal(files, place, "--test", files.data) == line


def test_a_model_that_is_not_class_conditional_is_refused(files: Files, place: Path, tmp_path: Path) -> None:
    path = tiny_model(tmp_path, class_conditional=False, data=FRUITS, counts=COUNTS)
    line = f"{path}: is not class-conditional, and cannot draw one class; train one that is"
    assert refusal(files._replace(model=path), place) == line


def test_a_class_that_the_model_has_not_seen_is_refused_where_it_is_wanted(
    files: Files, place: Path, tmp_path: Path
) -> None:
    path = tiny_model(tmp_path, class_conditional=True, data=FRUITS, counts=(30, 0, 12))
    files = files._replace(model=path)
    line = f"{path}: has not seen class fig; leave it out, with --classes, or train on it"
    assert refusal(files, place) == line
    call(files, place / "out", "--classes", "pear", "--target", 13)


def test_a_class_without_training_images_is_refused(files: Files, place: Path, tmp_path: Path) -> None:
    path = saved_split(tmp_path / "train.safetensors", split((30, 0, 12), 1))
    line = f"{path}: has no image of class fig; leave it out, with --classes"
    assert refusal(files._replace(data=path), place, "--test", files.test) == line


def test_a_model_of_other_images_is_warned_of(
    files: Files, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_model(tmp_path, class_conditional=True, data=FRUITS, counts=(30, 500, 12))
    call(files._replace(model=path), place / "out", "--target", 6)
    line = f"warning: class fig: the model has seen 500 training images, and {files.data} has 5: copies of others "
    assert line in capsys.readouterr().err


def test_a_classifier_of_one_class_is_refused(place: Path, tmp_path: Path) -> None:
    card = FRUITS.model_copy(update={"classes": ("apple",)})
    paths = [
        saved_split(tmp_path / f"{name}.safetensors", split((count,), 0), card)
        for name, count in (("train", 9), ("test", 6))
    ]
    model = tiny_model(tmp_path, class_conditional=True, data=card, counts=(9,))
    save_classifier(tmp_path / "judge.safetensors", classifier(card))
    files = Files(paths[0], paths[1], model, tmp_path / "judge.safetensors")
    line = f"{files.classifier}: the classifier is of one class alone, and cannot tell whether an image shows it"
    assert refusal(files, place) == line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--classes", "plum"], "--classes: no class is named plum; choose from apple, fig, pear"),
        (["--steps", 21], "steps is 21, but the model has only 20 timesteps"),
        (["--guidance", 2], "guidance: 2, but this model has no guide early (it has none); set guidance to 1"),
        (["--eta", 2], "command line: 1 invalid\n  eta: "),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options: list[object], line: str, files: Files, place: Path) -> None:
    assert refusal(files, place, *options).startswith(line)


def test_a_folder_with_something_in_it_is_refused_first(files: Files, place: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    nothing = files._replace(data=tmp_path / "none", model=tmp_path / "none")
    with pytest.raises(UserError, match=r"full: exists and is not an empty folder; nothing was written$"):
        call(nothing, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "0"], "argument --target: '0' is not a whole number from 1 to 1000000"),
        (["--most-tries", "1001"], "argument --most-tries: '1001' is not a whole number from 1 to 1000"),
        (["--least-probability", "1"], "argument --least-probability: '1' is not a number from 0 to below 1"),
        (["--least-probability", "nan"], "argument --least-probability: 'nan' is not a number from 0 to below 1"),
        (["--least-probability", "x"], "argument --least-probability: 'x' is not a number from 0 to below 1"),
        (["--seed", "-1"], "argument --seed: '-1' is not a whole number from 0 to 9223372036854775807"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(
    options: list[Any], message: str, files: Files, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        call(files, place / "out", *options)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_every_option(
    files: Files, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        call(files, place / "out", "--help")
    names = "data model classifier out test target least-probability most-tries seed sampler steps spacing eta "
    names += "guidance guide guidance-interval variance classes clip"
    output = capsys.readouterr().out
    assert " ".join(re.findall(r"^  --([a-z-]+)", output, flags=re.MULTILINE)) == names
    assert "default: None)" not in output.split("--spacing {")[0]
    assert words(files, place / "out")[0] == "--data"
