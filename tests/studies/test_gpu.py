"""`studies.gpu.run` sees what is wrong on a device, and says so."""

import pytest
import torch
from torch import Tensor

from ddpm.processes.device import Runtime
from exact_stages.console import UserError
from stages.train import Params
from studies.gpu import run as gpu
from studies.trainings import PLAIN


def test_all_of_it_runs_on_a_cpu_and_fails_with_a_wrong_gradient(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = gpu.gradient

    def wrong(params: Params, runtime: Runtime) -> dict[str, Tensor]:
        found = right(params, runtime)
        if runtime.precision is torch.bfloat16:
            found["down.0.conv1.weight"] = -found["down.0.conv1.weight"]
        return found

    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    monkeypatch.setattr("sys.argv", ["gpu", "--small"])
    monkeypatch.setattr(gpu, "gradient", wrong)
    with pytest.raises(UserError):
        gpu.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == (13 if PLAIN.exists() else 8)
    assert ["bfloat16" in row[0] for row in rows] == ["beyond" in row[1] for row in rows]
