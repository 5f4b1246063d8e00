"""What `python -m ddpm.cli.balance` makes of an imbalanced set."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.balancing.drawing import SPAN
from ddpm.cli import balance
from ddpm.compute.device import Runtime
from ddpm.images.splits import load_split
from ddpm.pipeline.console import UserError
from ddpm.pipeline.process import sha256
from ddpm.sampling.drawing import draw_batch
from tests.balancing.small_set import COUNTS, Files, saved_split, split, written
from tests.cli.generating import ENVIRONMENT, SOURCE, ended, wait_for
from tests.cli.generating import call as generate

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return written(tmp_path_factory.mktemp("set"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command works, and keeps its state."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def words(files: Files, out: Path, *options: object) -> list[str]:
    given = ["--data", files.data, "--model", files.model, "--classifier", files.classifier, "--out", out]
    return [*map(str, [*given, "--steps", 2, *options])]


def call(files: Files, out: Path, *options: object) -> Rows:
    """The rows of the table that the command leaves."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.delenv("DDPM_THREADS", raising=False)
            for name, value in ENVIRONMENT.items():
                patched.setenv(name, value)
            patched.setattr(sys, "argv", ["balance", *words(files, out, *options)])
            balance.main()
    finally:
        torch.use_deterministic_algorithms(deterministic)
    with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.*")}


def counted(rows: Rows) -> dict[tuple[str, str, str], int]:
    """By split, class and origin."""
    keys = [(row["file"].split("/")[0], row["class"], row["origin"]) for row in rows]
    return {key: keys.count(key) for key in sorted({*keys})}


REAL = {("test", "apple", "real"): 7, ("test", "fig", "real"): 6, ("test", "pear", "real"): 6}
REAL |= {("train", "apple", "real"): 30, ("train", "fig", "real"): 5, ("train", "pear", "real"): 12}


def test_each_class_has_as_many_as_the_most_frequent(
    files: Files, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = call(files, place / "out")
    drawn = {("train", "fig", "drawn"): 25, ("train", "pear", "drawn"): 18}
    assert counted(rows) == REAL | drawn
    seen = {row["model"] for row in rows if row["origin"] == "drawn"}
    assert seen == {sha256(files.model)}
    output, errors = capsys.readouterr()
    table = [line.split() for line in output.splitlines()]
    assert table[0] == ["class", "real", "drawn", "candidates", "filtered", "out", "copies"]
    assert table[1] == ["apple", "30", "0", "0", "0", "0"]
    assert [line[:3] for line in table[2:]] == [["fig", "5", "25"], ["pear", "12", "18"]]
    for _, _, kept, candidates, filtered, copies in table[1:]:
        assert int(candidates) == int(kept) + int(filtered) + int(copies)
    warnings = [line for line in errors.splitlines() if line.startswith("warning: ")]
    assert [line.split(" a model")[0] for line in warnings] == [
        "warning: class fig: of 5 training images",
        "warning: class pear: of 12 training images",
    ]


def test_the_images_are_those_of_the_files(files: Files, place: Path) -> None:
    rows = call(files, place / "out", "--target", 6)
    for name, path in (("train", files.data), ("test", files.test)):
        card, (images, labels), *_ = load_split(path)
        for label, of_class in enumerate(card.classes):
            found = sorted(
                np.asarray(Image.open(place / "out" / row["file"])).transpose(2, 0, 1).tobytes()
                for row in rows
                if (row["file"].split("/")[0], row["class"], row["origin"]) == (name, of_class, "real")
            )
            assert found == sorted(image.numpy().tobytes() for image in images[labels == label])


def test_generate_draws_them_again(files: Files, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 1)  # other batches round otherwise
    rows = [row for row in call(files, place / "out", "--target", 8, "--seed", 7) if row["origin"] == "drawn"]
    assert len(rows) == 3
    assert int(rows[0]["index"]) // SPAN == 1
    for row in rows:
        again = generate(
            files.model,
            place / row["index"],
            *("--classes", row["class"], "--seed", row["seed"], "--first", row["index"], "--count", 1, "--steps", 2),
        )
        assert (again / f"{row['index']}.png").read_bytes() == (place / "out" / row["file"]).read_bytes()


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        (["--target", 7], {"fig": 2}),
        (["--target", 14, "--classes", "pear", "apple"], {"pear": 2}),
        (["--target", 5], {}),
        (["--classes", "apple"], {}),
    ],
    ids=str,
)
def test_targets_and_classes(options: list[object], drawn: dict[str, int], files: Files, place: Path) -> None:
    expected = {("train", name, "drawn"): count for name, count in drawn.items()}
    assert counted(call(files, place / "out", *options)) == REAL | expected


def test_a_class_that_cannot_be_filled_is_given_up_with_a_warning(
    files: Files, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = call(files, place / "out", "--target", 33, "--most-tries", 4, "--classes", "apple")
    assert counted(rows) == REAL
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if line.startswith("warning: ")] == [
        "warning: class apple: 30 training images; of 12 drawn 0 were copies and 12 others were not taken for the "
        "class: 0 of 3 wanted are there; a model that was trained longer, or on more images, may give more"
    ]


def test_a_least_probability_is_asked_for(files: Files, place: Path) -> None:
    any_rows, sure = (
        [float(row["probability"]) for row in call(files, place / str(least), *options) if row["origin"] == "drawn"]
        for least in (0.0, 0.9)
        for options in [["--target", 9, "--least-probability", least]]
    )
    assert len(any_rows) == len(sure) == 4
    assert min(any_rows) < 0.9 <= min(sure)


def test_settings_stand_beside_the_table(files: Files, place: Path) -> None:
    call(files, place / "out", "--target", 6, "--seed", 3, "--eta", 0.5)
    settings = json.loads((place / "out/balance.json").read_text())
    assert settings["sha256"] == {name: sha256(path) for name, path in files._asdict().items()}
    assert (settings["seed"], settings["wanted"], settings["sampler"]["eta"]) == (3, {"fig": 1}, 0.5)


def test_equal_seeds_give_equal_bytes_and_others_do_not(files: Files, place: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        call(files, place / name, "--target", 8, "--seed", seed)
    assert content(place / "a") == content(place / "b")
    assert content(place / "a") != content(place / "c")


def test_cut_off_it_goes_on_to_the_same_bytes(
    files: Files, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 4)
    call(files, place / "whole")
    steps = 0

    def interrupted(*arguments: object) -> object:
        nonlocal steps
        for step in draw_batch(*arguments):  # type: ignore[arg-type]
            steps += 1
            if steps in (9, 26):
                os.kill(os.getpid(), signal.SIGTERM)
            yield step

    monkeypatch.setattr("ddpm.balancing.drawing.draw_batch", interrupted)
    for _ in range(2):
        line = r"interrupted after \d+ of 43 images; the same command goes on from there"
        with pytest.raises(UserError, match=f"^{line}$"):
            call(files, place / "out")
        assert sorted(path.name for path in place.iterdir()) == [".resume", "whole"]
    call(files, place / "out")
    assert re.findall(r"resuming after (\d+) of 43 images", capsys.readouterr().err)[-1] != "0"
    assert content(place / "out") == content(place / "whole")
    assert [path.suffix for path in (place / ".resume").rglob("*.safetensors")] == []


def test_cut_off_while_it_writes_it_draws_nothing_anew(
    files: Files, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(files, place / "whole", "--target", 8)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ddpm.balancing.folder.write_json", full)
        with pytest.raises(OSError, match="No space left"):
            call(files, place / "out", "--target", 8)
    assert sorted(path.name for path in place.iterdir()) == [".resume", "whole"]
    monkeypatch.setattr("ddpm.balancing.drawing.draw_batch", full)
    call(files, place / "out", "--target", 8)
    assert content(place / "out") == content(place / "whole")


@pytest.mark.long
def test_killed_it_leaves_no_folder_and_goes_on(files: Files, place: Path) -> None:
    options = ["--steps", 10, "--target", 160, "--classes", "fig", "pear"]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(SOURCE), "DDPM_SAVE_SECONDS": "0"}

    def begun() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "ddpm.cli.balance", *words(files, place / "out", *options)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    process = begun()
    wait_for(lambda: any(place.glob(".resume/balance-*/1.safetensors")), process)
    process.kill()
    process.communicate()
    assert sorted(path.name for path in place.iterdir()) == [".out.partial", ".resume"]
    process = begun()
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert re.search(r"^resuming after \d+ of 303 images$", errors, re.MULTILINE)
    assert len(output.splitlines()) == 4
    assert sorted(path.name for path in place.iterdir()) == [".resume", "out"]
    call(files, place / "whole", *options)
    assert content(place / "out") == content(place / "whole")


def test_ctrl_c_ends_in_one_line(files: Files, place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpm.cli.balance", *words(files, place / "out", "--steps", 20, "--target", 5000)],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((place / ".out.partial").exists, process)
    process.send_signal(signal.SIGINT)
    code, line, _ = ended(process)
    assert code == 1
    assert re.fullmatch(r"error: interrupted after \d+ of \d+ images; the same command goes on from there", line)
    assert [path.name for path in place.iterdir()] == [".resume"]


def test_a_set_of_ones_own_for_testing(files: Files, place: Path) -> None:
    other = saved_split(place / "other.safetensors", split((2, 3, 1), 9))
    rows = call(files, place / "out", "--target", 5, "--test", other)
    assert [counted(rows)["test", name, "real"] for name in ("apple", "fig", "pear")] == [2, 3, 1]
    assert sum(COUNTS) == sum(row["file"].startswith("train/") for row in rows)


def test_classes_without_test_images_have_no_folder_and_a_warning(
    files: Files, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = saved_split(place / "other.safetensors", split((2, 0, 1), 9))
    call(files, place / "out", "--target", 6, "--test", other)
    assert sorted(path.name for path in (place / "out/test").iterdir()) == ["apple", "pear"]
    assert "warning: no images of fig for test: " in capsys.readouterr().err
