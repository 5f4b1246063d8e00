"""However a run ends, it says so in one line, and what it leaves is whole."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.compute.device import Runtime
from ddpm.networks.checkpoint import load_model
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from ddpm.sampling.drawing import draw_labels
from tests.cli.generating import ENVIRONMENT, SOURCE, call, ended, sampler, started, tiny_model, wait_for

TIMESTEPS = 1000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of many timesteps, so that there is time to interrupt it."""
    return tiny_model(tmp_path_factory.mktemp("model"), class_conditional=True, timesteps=TIMESTEPS)


def test_an_interrupt_while_torch_is_imported_ends_in_one_line(model: Path, tmp_path: Path) -> None:
    process = started("--model", model, "--out", tmp_path / "out")
    maps = Path(f"/proc/{process.pid}/maps")
    wait_for(lambda: "libtorch" in maps.read_text(), process)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (1, "interrupted", "\ninterrupted\n")
    assert list(tmp_path.iterdir()) == []


GOING_ON = r"error: interrupted after (\d+) of 2000 images; go on with --first (\d+) --count (\d+) and another --out"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_pngs_that_were_finished_stay_and_the_message_says_how_to_go_on(
    model: Path, stop: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = started("--model", model, "--out", out, "--count", 2000, "--steps", 50, "--first", 50)
    wait_for((out / "000178.png").exists, process)  # of the second batch
    process.send_signal(stop)
    code, line, _ = ended(process)
    found = re.fullmatch(GOING_ON, line)
    assert found, line
    done, first, left = map(int, found.groups())
    assert (code, first, left) == (1, 50 + done, 2000 - done)
    names = [f"{number:06d}.png" for number in range(50, first)]
    assert sorted(path.name for path in out.iterdir()) == [*names, "labels.csv"]
    assert {Image.open(out / name).size for name in names} == {(28, 28)}
    assert len((out / "labels.csv").read_text().splitlines()) == 1 + done


def test_npz_holds_the_images_that_were_finished(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where it is known what the interrupt hits: the third batch."""
    steps = 0

    def progress(**_: object) -> "Bar":
        return Bar()

    class Bar:
        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, _: int) -> None:
            nonlocal steps
            steps += 1
            if steps == 12:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("ddpm.cli.generate.progress", progress)
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 3)
    message = "^interrupted after 6 of 20 images; go on with --first 106 --count 14 and another --out$"
    with pytest.raises(UserError, match=message):
        call(model, tmp_path / "out", "--count", 20, "--first", 100, "--format", "npz")
    with np.load(tmp_path / "out/images.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    assert len(labels) == 6
    assert labels.tolist() == draw_labels(load_model(model).card, sampler(), 0, range(100, 106)).tolist()
    monkeypatch.undo()
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 3)
    call(model, tmp_path / "whole", "--count", 6, "--first", 100, "--format", "npz")
    with np.load(tmp_path / "whole/images.npz") as arrays:
        assert np.array_equal(arrays["images"], images)


def test_an_interrupt_before_the_first_image_leaves_nothing(model: Path, tmp_path: Path) -> None:
    process = started("--model", model, "--out", tmp_path / "out", "--count", 128, "--steps", TIMESTEPS)
    wait_for((tmp_path / "out").exists, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert ended(process)[:2] == (1, "error: interrupted after 0 of 128 images")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_predictions_that_are_not_finite_end_it_with_nothing_written(
    model: Path, image_format: str, tmp_path: Path
) -> None:
    arrays, metadata = load_arrays(model)
    arrays |= {name: torch.full_like(weight, 1e38) for name, weight in arrays.items()}
    save_arrays(tmp_path / "model", arrays, metadata)
    with pytest.raises(UserError, match=r"^image 7: the model's predictions are not finite; "):
        call(tmp_path / "model", tmp_path / "out", "--first", 7, "--format", image_format)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_spoil_nothing(closed: str, model: Path, tmp_path: Path) -> None:
    command = f'exec "$0" -m ddpm.cli.generate --model "$1" --out "$2" --count 2 --steps 2 {closed}'
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(SOURCE)}
    words = ["bash", "-c", command, sys.executable, str(model), str(tmp_path / "out")]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (0, "")
    assert "Traceback" not in result.stderr
    assert Image.open(io.BytesIO((tmp_path / "out/000001.png").read_bytes())).size == (28, 28)
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_names_of_any_bytes_are_taken_and_shown(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xc3\xa9\xe2\x98\x83 \xff")
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    assert ended(started("--model", model, "--out", folder, "--count", 1, "--steps", 1, **plain))[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["000000.png", "labels.csv"]
    code, line, _ = ended(started("--model", model, "--out", folder, **plain))
    assert code == 1
    assert line.endswith(": exists and is not an empty folder; nothing was written")
    code, line, _ = ended(started("--model", folder / "none", "--out", tmp_path / "out", **plain))
    assert code == 1
    assert "/none: no such file; " in line
