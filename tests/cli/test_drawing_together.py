"""Several processes draw what one draws, byte for byte: `generate`, `balance` and the stage `sample`."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.balancing.filling import Source, Tally, begun, fill
from ddpm.classifier.model import load_classifier
from ddpm.cli.generate import draw_images
from ddpm.compute.device import Runtime
from ddpm.networks.checkpoint import LoadedModel, load_model
from ddpm.parallel.group import ALONE, Group
from ddpm.parallel.resume import State
from stages.sample import SampleParams, draw
from tests.balancing.small_set import COUNTS, TESTED, Files, split, written
from tests.cli.generating import CPU, ENVIRONMENT, SOURCE, ended, sampler, started, tiny_model, wait_for
from tests.small import FRUITS

several = pytest.mark.parametrize("size", [2, 3, 5])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("DVC_ROOT", "DDPM_PROCESSES"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let this process do the work of a whole group; the tasks of each round, as they come."""
    rounds: list[int] = []

    def each(group: Group, work: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        assert 0 < len(tasks) <= group.size
        rounds.append(len(tasks))
        return [work(task) for task in tasks]

    monkeypatch.setattr(Group, "each", each)
    monkeypatch.setattr(Group, "gather", lambda group, value: [value] * group.size)
    monkeypatch.setattr(Group, "from_first", lambda _, value: value)
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 4)
    return rounds


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), class_conditional=True)


@pytest.fixture(scope="module")
def loaded(model: Path) -> LoadedModel:
    return load_model(model)


@several
def test_generate_draws_the_batches_of_one_process_in_turn(size: int, groups: list[int], loaded: LoadedModel) -> None:
    alone, together = (
        [*draw_images(loaded, sampler(), 3, range(5, 31), CPU, group=group)] for group in (ALONE, Group(0, size))
    )
    assert [first for first, _ in together] == [5, 9, 13, 17, 21, 25, 29]
    assert all(torch.equal(*images) for (_, *images) in ((0, a[1], b[1]) for a, b in zip(alone, together, strict=True)))
    assert groups == [1] * 7 + {2: [2, 2, 2, 1], 3: [3, 3, 1], 5: [5, 2]}[size]


@several
@pytest.mark.parametrize("keep_every", [0, 2])
def test_sample_draws_and_goes_on_in_any_group(
    size: int, keep_every: int, groups: list[int], loaded: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    params = SampleParams.model_validate(
        {**sampler().model_dump(), "classes": "all", "count": 26, "keep_every": keep_every, "seed": 1}
    )

    def drawn(key: str, group: Group, count: int = 26) -> tuple[dict[str, torch.Tensor], list[int]]:
        state = State("sample", key)
        found = draw("gallery", loaded, params.model_copy(update={"count": count}), CPU, state, group)
        state.save(found[0], {"kept_t": found[1]})
        return found

    alone, kept_t = drawn("alone" * 4, ALONE)
    assert alone["images"].shape == (26, 1, 28, 28)
    assert len(kept_t) == alone["frames"].shape[1] == (3 if keep_every else 0)
    for first in (0, 12):
        if first:
            drawn(f"{first:020}", ALONE, count=first)
        found, found_t = drawn(f"{first:020}", Group(0, size))
        assert found_t == kept_t
        assert all(torch.equal(found[name], alone[name]) for name in alone)
    assert capsys.readouterr().err.count("resuming after 12 of 26 images") == 1


@several
def test_classes_are_filled_as_by_one_process_wherever_it_goes_on(size: int, groups: list[int], tmp_path: Path) -> None:
    files = written(tmp_path)
    judge, params = load_classifier(files.classifier), sampler(steps=2, spacing=None)
    train, fresh = split(COUNTS, 1), split(TESTED, 2)
    source = Source(load_model(files.model), judge, params, 0, CPU, train, fresh, least=0.0, tries=4)
    wanted = {1: 28, 0: 3, 2: 9}
    before = begun(FRUITS.shape, {}, {})
    *_, alone = fill(source, wanted, before)
    groups.clear()
    stations = [*fill(source, wanted, before, group=Group(0, size))]
    assert max(groups) == size, "there was something to share"
    assert sum(groups) > len(stations), "and something that one process would not have drawn"
    for station in stations[:: len(stations) // 3]:
        arrays, facts = station.saved()
        *_, found = [station, *fill(source, wanted, begun(FRUITS.shape, arrays, facts), group=Group(0, size - 1))]
        assert found.tallies == alone.tallies
        for label in wanted:
            of_class = [each.kept.take((each.kept.labels == label).nonzero().squeeze(1)) for each in (found, alone)]
            assert all(torch.equal(*pair) for pair in zip(*of_class, strict=True))


@pytest.mark.parametrize(
    ("tally", "batches"),
    [
        (Tally(), [range(4), range(4, 8)]),  # ten wanted, and of the last batch it is not known how large it is
        (Tally(8, 0, 0, 8), [range(8, 10)]),
        (Tally(8, 4, 0, 4), [range(8, 12), range(12, 16), range(16, 20)]),
        (Tally(40, 31, 0, 9), [range(40, 44)]),
        (Tally(20, 10, 0, 10), []),
        (Tally(200, 200, 0, 0), []),
        (Tally(999_998, 0, 0, 9), [range(999_998, 1_000_000)]),
    ],
)
def test_batches_that_are_likely_to_come_next(tally: Tally, batches: list[range]) -> None:
    tries = 1_000_000 if tally.kept else 20
    assert [*tally.next_batches(10, tries, 4)] == batches
    if batches:
        assert len(batches[0]) == tally.next_count(10, 4), "the first is sure"


TWO = {"DDPM_PROCESSES": "2", "DDPM_THREADS": "2"}  # a thread for each


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.long
@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_two_processes_generate_the_bytes_of_one(model: Path, image_format: str, tmp_path: Path) -> None:
    for name, environment in (("one", {"DDPM_THREADS": "1"}), ("two", TWO)):
        options = ("--model", model, "--out", tmp_path / name, "--count", 300, "--steps", 3, "--format", image_format)
        assert ended(started(*options, **environment))[0] == 0
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_end_in_one_line_and_leave_whole_files(
    number: signal.Signals, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    slow = tiny_model(tmp_path_factory.mktemp("slow"), class_conditional=True, timesteps=1000)
    out = tmp_path / "out"
    process = started("--model", slow, "--out", out, "--count", 5000, "--steps", 50, **TWO)
    wait_for((out / "000200.png").exists, process)
    process.send_signal(number)
    code, line, said = ended(process)
    found = re.fullmatch(r"error: interrupted after (\d+) of 5000 images; go on with --first \1 .*", line)
    assert code == 1
    assert found, said
    assert said.count("interrupted") == 1
    names = {f"{number:06d}.png" for number in range(int(found[1]))}
    assert {path.name for path in out.iterdir()} == {*names, "labels.csv"}


@pytest.mark.long
def test_what_two_processes_cannot_do_is_said_once(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"no model")
    for options in (("--model", tmp_path / "bad"), ("--model", model, "--steps", 30)):
        code, line, said = ended(started(*options, "--out", tmp_path / "out", "--count", 300, **TWO))
        assert code == 1
        assert line.startswith("error: ")
        assert said.count("error") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return written(tmp_path_factory.mktemp("set"))


def balanced(files: Files, out: Path, **environment: str) -> "subprocess.Popen[str]":
    given = ["--data", files.data, "--model", files.model, "--classifier", files.classifier, "--out", out]
    return subprocess.Popen(
        [sys.executable, "-m", "ddpm.cli.balance", *map(str, given), "--steps", "10", "--target", "4000"],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(SOURCE), "DDPM_SAVE_SECONDS": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
def test_two_processes_balance_and_one_goes_on_to_the_same_bytes(files: Files, tmp_path: Path) -> None:
    process = balanced(files, tmp_path / "out", **TWO)
    wait_for(lambda: any(tmp_path.glob(".resume/balance-*/1.safetensors")), process)
    process.send_signal(signal.SIGTERM)
    code, line, said = ended(process)
    assert code == 1
    assert re.fullmatch(r"error: interrupted after \d+ of \d+ images; the same command goes on from there", line)
    assert said.count("warning: class fig") == 1
    process = balanced(files, tmp_path / "out", DDPM_THREADS="1")
    report, said = process.communicate(timeout=300)
    assert "resuming after" in said
    process = balanced(files, tmp_path / "whole", **TWO)
    assert process.communicate(timeout=300)[0] == report
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
