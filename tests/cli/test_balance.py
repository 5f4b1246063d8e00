"""What `ddpm balance` makes of an imbalanced set."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.balancing.filling import SPAN
from ddpm.images.splits import to_float
from ddpm.scores.classifier import features_and_logits, load_classifier, save_classifier
from exact_stages.console import UserError
from exact_stages.files import sha256
from tests.balancing.small_set import COUNTS, TESTED, Files, classifier, saved_split, split, written
from tests.cli.generating import call, generate, tiny_model
from tests.small import CPU, FRUITS

Rows = list[dict[str, str]]
REAL = {("test", "apple", "real"): 7, ("test", "fig", "real"): 6, ("test", "pear", "real"): 6}
REAL |= {("train", "apple", "real"): 30, ("train", "fig", "real"): 5, ("train", "pear", "real"): 12}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return written(tmp_path_factory.mktemp("set"))


def balance(files: Files, out: Path, *options: object) -> Rows:
    paths = ["--data", files.data, "--model", files.model, "--classifier", files.classifier]
    call("balance", *paths, "--out", out, "--steps", 3, *options)
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def counted(rows: Rows) -> dict[tuple[str, str, str], int]:
    keys = [(row["file"].split("/")[0], row["class"], row["origin"]) for row in rows]
    return {key: keys.count(key) for key in sorted({*keys})}


def sampled(rows: Rows) -> Rows:
    return [row for row in rows if row["origin"] == "sampled"]


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*")}


def test_classes_are_filled_up_to_the_largest(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = balance(files, tmp_path / "out")
    assert counted(rows) == REAL | {("train", "fig", "sampled"): 25, ("train", "pear", "sampled"): 18}
    assert {row["model"] for row in sampled(rows)} == {sha256(files.model)}
    output, errors = capsys.readouterr()
    table = [line.split() for line in output.splitlines()]
    assert table[0] == ["class", "real", "sampled", "candidates", "filtered", "out", "copies"]
    assert table[1] == ["apple", "30", "0", "0", "0", "0"]
    assert [line[:3] for line in table[2:]] == [["fig", "5", "25"], ["pear", "12", "18"]]
    for name, _, kept, candidates, filtered, copies in table[1:]:
        assert int(candidates) == int(kept) + int(filtered) + int(copies)
        told = f"class {name}: the filter rejected {filtered} of {candidates} candidates"
        assert (told in errors) == (int(filtered) > int(candidates) / 3)
    assert re.findall("warning: class ([a-z]+): with only ([0-9]+) training", errors) == [("fig", "5"), ("pear", "12")]


def levels(path: Path) -> Tensor:
    """The uint8 image (C, H, W) of a picture."""
    return torch.from_numpy(np.array(Image.open(path)).transpose(2, 0, 1))


def test_all_pictures_are_there_and_the_table_says_what_they_are(files: Files, tmp_path: Path) -> None:
    rows, judge = balance(files, tmp_path), load_classifier(files.classifier)
    assert sorted(row["file"] for row in rows) == sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")
    )
    assert all(row["file"].split("/")[1] == row["class"] for row in rows)
    real = sorted((row["class"], levels(tmp_path / row["file"]).tolist()) for row in rows if row["origin"] == "real")
    given = (zip(*each, strict=True) for each in (split(COUNTS, 1), split(TESTED, 2)))
    assert real == sorted((FRUITS.classes[label], image.tolist()) for each in given for image, label in each)
    for row in sampled(rows)[::9]:
        image, nearest = (levels(tmp_path / row[name]) for name in ("file", "nearest"))
        assert row["nearest"].startswith(f"train/{row['class']}/")
        difference = (to_float(image) - to_float(nearest)).square().mean().sqrt().item()
        assert float(row["distance"]) == pytest.approx(difference, abs=1e-6)
        _, logits = features_and_logits(judge, image[None], CPU.device)
        probability = logits.softmax(1)[0, FRUITS.classes.index(row["class"])].item()
        assert float(row["probability"]) == pytest.approx(probability, abs=0.01)  # of another batch


def test_names_and_places_do_not_tell_real_from_sampled(files: Files, tmp_path: Path) -> None:
    rows, others = (
        [row for row in balance(files, tmp_path / str(seed), "--seed", seed) if row["file"].startswith("train/pear/")]
        for seed in (0, 1)
    )
    assert [row["file"] for row in rows] == [f"train/pear/{place:06d}.png" for place in range(30)]
    order = [row["origin"] for row in rows]
    assert order not in (sorted(order), sorted(order, reverse=True), [row["origin"] for row in others])


def test_generate_samples_them_again(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpm.diffusion.sets.SAMPLED_ON_CPU", 1)  # other batches round otherwise
    rows = sampled(balance(files, tmp_path / "out", "--target", 8, "--seed", 7))
    assert len(rows) == 3
    assert int(rows[0]["index"]) // SPAN == 1
    for row in rows:
        options = ["--classes", row["class"], "--seed", row["seed"], "--first", row["index"], "--count", 1]
        again = generate(files.model, tmp_path / row["index"], *options, "--steps", 3)
        assert (again / f"{row['index']}.png").read_bytes() == (tmp_path / "out" / row["file"]).read_bytes()


def test_what_cannot_be_filled_is_given_up(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = balance(files, tmp_path / "out", "--target", 33, "--classes", "apple")
    assert counted(rows) == REAL
    output, errors = capsys.readouterr()
    assert output.splitlines()[1].split() == ["apple", "30", "0", "60", "60", "0"]
    assert "warning: class apple: only 0 of 3 images" in errors
    assert "warning: class apple: the filter rejected 60 of 60 candidates" in errors


def test_settings_stand_beside_the_table_and_equal_seeds_give_equal_bytes(files: Files, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        balance(files, tmp_path / name, "--target", 8, "--seed", seed, "--eta", 0.5)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a") != content(tmp_path / "c")
    settings = json.loads((tmp_path / "c/balance.json").read_text())
    assert settings["sha256"] == {name: sha256(path) for name, path in files._asdict().items()}
    assert (settings["seed"], settings["wanted"], settings["sampler"]["eta"]) == (2, {"fig": 3}, 0.5)


def test_files_of_other_images_are_named(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card, other = (FRUITS.model_copy(update={"images_hash": digit * 64}) for digit in "01")
    save_classifier(tmp_path / "other.safetensors", classifier(other))
    data = saved_split(tmp_path / "train.safetensors", split(COUNTS, 1), card)
    saved_split(tmp_path / "test.safetensors", split(TESTED, 2), card)
    changed = files._replace(data=data, classifier=tmp_path / "other.safetensors")
    balance(changed, tmp_path / "out", "--target", 6)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if ".safetensors: " in line)
    assert f" {changed.classifier}: " in line


def test_files_of_another_set_are_refused(files: Files, tmp_path: Path) -> None:
    card = FRUITS.model_copy(update={"classes": ("apple", "fig", "plum")})
    save_classifier(tmp_path / "classifier", classifier(card))
    paths = {"classifier": tmp_path / "classifier", "model": tiny_model(tmp_path, data=card, counts=COUNTS)}
    for kind, path in paths.items():
        with pytest.raises(UserError, match=f"^{path}: its data card has classes "):
            balance(files._replace(**{kind: path}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_class_is_named_and_nothing_is_written(files: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^classes: no class is named plum"):
        balance(files, tmp_path / "out", "--classes", "plum")
    assert not (tmp_path / "out").exists()
