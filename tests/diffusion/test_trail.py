"""The trail of hashes of a training: where another one parts from it."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from ddpm.diffusion.trail import VARIABLE
from exact_stages.console import UserError
from tests.trainings import finished, small_training, stopped

WRONG = "0" * 12


def test_it_has_the_weights_of_few_steps_and_of_the_last() -> None:
    trail = finished(epochs=3).trail
    assert [*trail] == ["1", "2", "5", "10", "12"]
    for step in (1, 5, 12):
        weights = stopped(step, epochs=3).network.state_dict().values()
        data = torch.cat([weight.flatten() for weight in weights]).numpy().tobytes()
        assert trail[str(step)] == hashlib.sha256(data).hexdigest()[:12]


@pytest.mark.parametrize(
    ("changed", "until", "ends"),
    [
        ({}, None, ""),
        ({}, 4, "equal to step 5"),
        ({}, 1, "equal to step 1"),
        ({"1": WRONG}, None, "equal to step 0, different at step 1"),
        ({"5": WRONG}, None, "equal to step 2, different at step 5"),
        ({"8": WRONG}, None, "equal to step 5, different at step 8"),
        ({"5": WRONG}, 2, "equal to step 2"),
    ],
)
def test_a_training_ends_where_it_parts_or_where_it_is_told(
    changed: dict[str, str], until: int | None, ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, trail = tmp_path / "trail.json", finished().trail
    path.write_text(json.dumps({"trail": trail | changed, "until": until}))
    monkeypatch.setenv(VARIABLE, str(path))
    training = small_training()
    if ends:
        with pytest.raises(UserError, match=f"^{ends}$"):
            list(training.run())
    else:
        list(training.run())
    assert json.loads(path.read_text()).get("said", "") == ends
