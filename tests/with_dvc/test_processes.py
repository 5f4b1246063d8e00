"""Stages in two processes: what one process gives, cut off or not, and one line for every mistake."""

import csv
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from ddpm.pipeline.arrays import load_arrays
from tests.cli.generating import wait_for
from tests.with_dvc.dvc_clone import Built, Clone, await_state, build_once, copy_clone, left

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
# A run that the cache does not have, of 246 steps: the processes agree on saving and stopping every 20.
LATE = {"train.seed": 1, "train.epochs": 2, "train.batch_size": 50}
STAGE = ("python", "-m", "stages.train")
TWO = {"DDPM_PROCESSES": "2"}
MODEL = "models/ddpm.safetensors"
CURVES = ("loss", "loss_by_timestep", "validation", "validation_by_timestep")


def curve(clone: Clone, name: str) -> list[float]:
    with (clone.path / f"metrics/train/{name}.csv").open() as file:
        return [float(cell) for row in list(csv.reader(file))[1:] for cell in row]


def read_json(clone: Clone, name: str) -> dict[str, object]:
    return json.loads((clone.path / f"metrics/train/{name}.json").read_text())


def workers(launcher: int) -> dict[int, int]:
    """The processes that a launcher has started, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher:
                found[int(re.search(rb"\0RANK=(\d+)\0", (folder / "environ").read_bytes())[1])] = int(folder.name)
        except OSError:
            continue  # ended meanwhile
    return found


def await_end(pid: int) -> None:
    deadline = time.monotonic() + 60
    while (Path("/proc") / str(pid)).exists():
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def together(pipeline: Built, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Clone:
    """`pipeline` with other params, trained by two processes without a kill."""

    def build(folder: Path) -> tuple[Clone, str]:
        clone = copy_clone(pipeline.clone, folder)
        clone.edit_params(LATE)
        return clone, clone.run("dvc", "repro", "train", **TWO)

    return build_once(tmp_path_factory, worker_id, "together", build).clone


def test_two_processes_train_what_one_trains(clone: Clone) -> None:
    clone.edit_params({"train.optimizer": "adam", "train.warmup_steps": 0})  # muon makes much of small differences
    weights, facts, curves, summaries, environments = [], [], [], [], []
    for processes in ("1", "2"):
        clone.run(*STAGE, DDPM_PROCESSES=processes)
        for kept, each in zip((weights, facts), load_arrays(clone.path / MODEL), strict=True):
            kept.append(each)
        curves.append({name: curve(clone, name) for name in CURVES})
        summaries.append(read_json(clone, "summary"))
        environments.append(read_json(clone, "environment"))
    # Only the order in which float32 adds differs. Of a gradient that is all rounding Adam makes a step of lr, 0.001.
    apart = torch.cat([(weights[1][name] - weights[0][name]).flatten().abs() for name in weights[0]])
    assert weights[1].keys() == weights[0].keys()
    assert (apart > 1e-4).double().mean() < 1e-3
    assert apart.max() < 0.005
    assert weights[0]["bottleneck.0.conv2.weight"].abs().max() > 3e-3, "it began at zero"
    assert [len(values) for values in curves[0].values()] == [24, 20, 2, 20]
    for name, values in curves[0].items():
        assert curves[1][name] == pytest.approx(values, rel=1e-5, abs=1e-6), name
    assert [summary.pop("follows") for summary in summaries] == [{}, {}]
    assert summaries[1] == pytest.approx(summaries[0], rel=1e-5)
    assert facts[1]["card"] == facts[0]["card"]
    assert [environment.pop("processes") for environment in environments] == [1, 2]
    assert environments[0] == environments[1]
    assert [each["environment"]["processes"] for each in facts] == [1, 2]


# The processes are in sessions of their own, so what is sent to the group reaches dvc and the launcher.
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_two_processes_that_are_cut_off_go_on_bit_for_bit(
    clone: Clone, together: Clone, number: signal.Signals
) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("processes hear of the launcher's death on Linux alone")
    clone.edit_params(LATE)
    process = clone.start("dvc", "repro", "train", DDPM_SAVE_SECONDS="0", **TWO)
    await_state(clone, process)
    os.killpg(process.pid, number)
    printed, _ = process.communicate(timeout=60)  # until the processes, which have the pipe as well, have ended
    assert process.returncode != 0
    assert printed.count("error: interrupted after step") == 1, printed
    assert "Traceback" not in printed, printed
    printed = clone.run("dvc", "repro", "train", **TWO)
    assert printed.count("resuming after step") == 1, printed
    assert left(clone) == left(together)


def test_the_state_of_two_processes_is_not_that_of_one(clone: Clone) -> None:
    clone.edit_params(LATE)
    process = clone.start(*STAGE, DDPM_SAVE_SECONDS="0", **TWO)
    await_state(clone, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 1
    alone = clone.start(*STAGE, DDPM_SAVE_SECONDS="0")
    deadline = time.monotonic() + 120
    while len(list((clone.path / ".resume").glob("train-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)  # until it has a state of its own
    alone.send_signal(signal.SIGTERM)
    assert "resuming" not in alone.communicate(timeout=60)[0]
    assert len(list((clone.path / ".resume").glob("train-*"))) == 2


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_process_that_is_killed_ends_the_stage_and_is_named(clone: Clone, together: Clone, rank: int) -> None:
    clone.edit_params(LATE)
    process = clone.start(*STAGE, DDPM_SAVE_SECONDS="0", **TWO)
    await_state(clone, process)
    started = workers(process.pid)
    assert sorted(started) == [0, 1]
    os.kill(started[rank], signal.SIGKILL)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert printed.endswith(f"error: the process of rank {rank} was ended by signal 9\n"), printed
    for pid in started.values():
        await_end(pid)
    assert clone.run("dvc", "repro", "train", **TWO).count("resuming after step") == 1
    assert left(clone) == left(together)


def complaint(clone: Clone, **variables: str) -> str:
    """What the stage says before it ends with exit code 1, in two processes unless the variables say otherwise."""
    return clone.run(*STAGE, code=1, **{**TWO, **variables})


@pytest.mark.parametrize("given", ["0", "1.5"])
def test_processes_that_are_no_number_are_one_line(clone: Clone, given: str) -> None:
    expected = f"error: DDPM_PROCESSES={given}: give a number of processes, 1 to 256\n"
    assert complaint(clone, DDPM_PROCESSES=given) == expected


def test_batch_norm_is_refused_and_nothing_is_trained(clone: Clone) -> None:
    before = clone.bytes_under("models")
    clone.edit_params({"model.block": "double_conv"})
    assert complaint(clone) == (
        "error: model.block: double_conv has BatchNorm, whose statistics several processes would not share; "
        "set DDPM_PROCESSES=1\n"
    )
    assert clone.bytes_under("models") == before
    clone.run(*STAGE, DDPM_PROCESSES="1")
    assert clone.bytes_under("models") != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train.lr": "fast"}, 'error: params.yaml: 1 invalid\n  train.lr: input should be a valid number, got "fast"'),
        ({"train.classes": [7, "cat"]}, "error: train.classes: no class is named cat; choose from 0, 1, 2, 3, 4, 5, "),
    ],
)
def test_wrong_params_are_said_once(clone: Clone, change: dict[str, object], message: str) -> None:
    clone.edit_params(change)
    printed = complaint(clone)
    assert printed.startswith(message), printed
    assert printed.count("\n") == message.count("\n") + 1, printed


def test_a_loss_that_is_no_number_is_one_line(clone: Clone) -> None:
    clone.append("src/ddpm/training/losses.py", "to_float = lambda images: images * torch.nan")
    said = [line for line in complaint(clone).splitlines() if line and not line.startswith("train: ")]
    assert said == ["error: train.lr: the loss is nan at step 1; try less than 0.001"]


def test_seconds_that_are_no_number_are_one_line(clone: Clone) -> None:
    expected = "error: DDPM_SAVE_SECONDS=soon: give a number of seconds, 0.0 to 1000000.0\n"
    assert complaint(clone, DDPM_SAVE_SECONDS="soon") == expected


@pytest.mark.long
def test_a_second_run_of_the_same_training_is_one_line(clone: Clone) -> None:
    clone.edit_params(LATE | {"train.epochs": 1000})
    process = clone.start(*STAGE, DDPM_SAVE_SECONDS="0", **TWO)
    try:
        await_state(clone, process)
        first = workers(process.pid)[0]
        assert complaint(clone) == f"error: train: process {first} is at it already; wait for it, or end it\n"
    finally:
        process.kill()
        process.communicate()


def test_more_processes_than_images_in_a_batch_are_refused(clone: Clone) -> None:
    clone.edit_params({"train.batch_size": 2})
    expected = "error: train.batch_size: 2 images cannot be shared among 3 processes; set DDPM_PROCESSES=2\n"
    assert complaint(clone, DDPM_PROCESSES="3") == expected


def test_two_processes_sample_what_one_samples_and_one_goes_on_where_they_were_cut_off(clone: Clone) -> None:
    clone.edit_params({"sample.population.count": 2000, "sample.population.steps": 20})
    stage, output = ("python", "-m", "stages.sample", "population"), clone.path / "data/samples/population.safetensors"
    clone.run(*stage)
    expected = output.read_bytes()
    output.unlink()
    shutil.rmtree(clone.path / ".resume")
    assert "resuming" not in clone.run(*stage, **TWO)
    assert output.read_bytes() == expected
    output.unlink()
    shutil.rmtree(clone.path / ".resume")
    process = clone.start(*stage, DDPM_SAVE_SECONDS="0", **TWO)
    wait_for(lambda: any(clone.path.glob(".resume/sample-population-*/1.safetensors")), process)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert printed.count("error: interrupted after") == 1, printed
    assert not output.exists()
    assert clone.run(*stage).count("resuming after") == 1
    assert output.read_bytes() == expected
