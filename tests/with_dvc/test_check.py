"""A wrong parameter ends each way of running before any other stage begins; `check` reruns after every edit."""

import re
import time

import pytest

from tests.with_dvc.dvc_clone import SECONDS, Clone, ran

pytestmark = pytest.mark.pipeline
WRONG = "likelihood.images=-1"  # which no stage before the training reads
ERROR = "error: params.yaml: 1 invalid\n  likelihood.images: "


@pytest.mark.parametrize("way", ["repro", "repro train", "exp run --temp"])
def test_a_wrong_parameter_ends_a_run_before_it_begins(way: str, clone: Clone) -> None:
    clone.edit_params({"train.lr": 0.0005, "data.fit": "pad"})  # so that the first stages would run, too
    if way.startswith("repro"):
        clone.edit_params({"likelihood.images": -1})
    output = clone.dvc(*way.split(), *(["-S", WRONG] if way.startswith("exp") else []), code=255)
    assert ERROR in output
    assert re.search("^Running stage 'check'", output, re.MULTILINE)
    assert ran(output) == set(), output


@pytest.mark.long
def test_a_wrong_parameter_ends_a_queued_run_before_it_begins(clone: Clone) -> None:
    clone.dvc("exp", "run", "--queue", "--name", "wrong", "-S", "train.lr=0.0005", "-S", WRONG)
    clone.dvc("queue", "start", "--jobs", "1")
    deadline = time.monotonic() + SECONDS
    while re.search("Queued|Running", status := clone.dvc("queue", "status")) and time.monotonic() < deadline:
        time.sleep(1)
    log = clone.dvc("queue", "logs", "wrong")
    assert "Failed" in status, log
    assert ERROR in log
    assert ran(log) == set(), log


def test_a_legal_edit_reruns_no_stage_that_does_not_read_it(clone: Clone) -> None:
    clone.edit_params({"likelihood.images": 11})
    output = clone.dvc("repro")
    assert re.search("^Running stage 'check'", output, re.MULTILINE)
    assert ran(output) == {"likelihood"}, output
