"""The command `ddpm`, in the tests' own process and in one of its own, and models to sample from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm.cli import commands
from ddpm.params.sample import SamplerParams
from ddpm.params.schedule import ScheduleParams
from tests import reverse

SOURCE = Path(commands.__file__).parents[2]
COUNTS = (0, 30, 0, 10, 0, 0, 0, 60, 0, 0)
ENVIRONMENT = {"DDPM_DEVICE": "cpu", "DDPM_PRECISION": "float32"}


def tiny_model(folder: Path, steps: int = 20, **facts: object) -> Path:
    """The file of a tiny model with a schedule of so many steps; its facts are those of `reverse.tiny_model`."""
    schedule = ScheduleParams(timesteps=steps, beta_start=0.001, beta_end=10 / steps)
    reverse.tiny_model(folder, **{"counts": COUNTS, "schedule": schedule, "time_embed_dim": 8, **facts})
    return (folder / "model.safetensors").rename(folder / "tiny.safetensors")


def sampler(**changes: object) -> SamplerParams:
    """What the options of `generate` mean, but for the changes."""
    return reverse.sampler(**{"sampler": "dpmpp_2m", "steps": 5, "clip": True, **changes})


def call(*words: object) -> None:
    """Run a command line in this process, on the CPU in float32, and leave torch's settings as they were."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in ENVIRONMENT.items():
                patched.setenv(name, value)
            commands.read([*map(str, words)]).run()
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def generate(model: Path, out: Path, *options: object) -> Path:
    """Sample into a folder with 5 steps, where the options say nothing of steps."""
    steps = [] if "--steps" in options else ["--steps", 5]
    call("generate", "--model", model, "--out", out, *steps, *options)
    return out


def started(*words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "ddpm", *map(str, words)],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code, and the last line of what it said."""
    output, errors = process.communicate(timeout=120)
    assert output == ""
    assert "Traceback" not in errors
    return process.returncode, errors.rstrip("\n").split("\n")[-1].split("\r")[-1]
