"""What a model file says of itself, damaged by structure: every file loads or is refused, within memory and time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm.classifier.model import Classifier, ClassifierParams, save_classifier
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.checkpoint import save_model
from ddpm.networks.unet import UNet
from tests.networks.card_mutants import MEGABYTES, SECONDS
from tests.small import DIGITS, unet_params

REPOSITORY = Path(__file__).parents[2]
MUTANTS = 2000


def model(path: Path, block: str) -> None:
    schedule = NoiseSchedule(ScheduleParams(timesteps=10, beta_start=0.01, beta_end=0.5))
    params = unet_params(channels=(2, 3), block=block, patch_size=2, class_conditional=True, attention=True)
    now, before = UNet(params, schedule, DIGITS), UNet(params, schedule, DIGITS)
    save_model(path, now, schedule, (1,) * 10, before.state_dict(), unlabelled=True, environment={"torch": "2"})


def classifier(path: Path, _: str) -> None:
    params = ClassifierParams(channels=1, images=1, epochs=1, batch_size=2, lr=0.1, shift=0, seed=0)
    save_classifier(path, Classifier(params, DIGITS))


@pytest.mark.parametrize(
    ("kind", "block"), [("model", "residual"), ("model", "double_conv"), ("classifier", "")], ids=str
)
def test_every_card_is_loaded_or_refused(kind: str, block: str, tmp_path: Path) -> None:
    {"model": model, "classifier": classifier}[kind](tmp_path / "file", block)
    result = subprocess.run(
        [sys.executable, "-m", "tests.networks.card_mutants", str(tmp_path / "file"), kind, str(MUTANTS)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout)
    assert MUTANTS / 50 < found["loaded"] < MUTANTS / 2, found
    assert found["slowest"] < SECONDS
    assert found["megabytes"] < MEGABYTES
