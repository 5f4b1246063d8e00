"""`studies.gpu.run` sees what is wrong on a device, and says so."""

import pytest
import torch
from torch import Tensor

from ddpm.compute.device import Runtime
from stages.train import Params
from studies.gpu import run as gpu
from tests.small import CPU


def test_all_of_it_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    monkeypatch.setattr("sys.argv", ["gpu", "--small"])
    gpu.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 13
    assert all(row.count(" | ") == 2 for row in rows)


def test_a_wrong_gradient_is_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    right, params = gpu.gradient, gpu.networks(small=True)["the default"]

    def wrong(params: Params, runtime: Runtime) -> dict[str, Tensor]:
        found = right(params, runtime)
        if runtime.precision is torch.bfloat16:
            found["down.0.conv1.weight"] = -found["down.0.conv1.weight"]
        return found

    assert [row.kept for row in gpu.gradients("it", params, CPU)] == [True, True]
    monkeypatch.setattr(gpu, "gradient", wrong)
    assert [row.kept for row in gpu.gradients("it", params, CPU)] == [True, False]
