"""The exported network computes what torch computes, says what it is, and names nothing of where it was made."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm.cli import export
from ddpm.diffusion.model import LoadedModel, load_model
from ddpm.diffusion.schedule import NoiseSchedule, linear_betas
from ddpm.diffusion.unet import UNet
from ddpm.images.card import DataCard
from ddpm.params.schedule import ScheduleParams
from exact_stages.console import UserError
from tests import reverse
from tests.cli.generating import call, tiny_model
from tests.small import CPU, DIGITS, FRUITS

pytest.importorskip("onnxscript", reason="pip install onnx onnxscript")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

pytestmark = pytest.mark.long
LINEAR = ScheduleParams(timesteps=20, beta_start=0.001, beta_end=0.5)
SCHEDULE = NoiseSchedule(linear_betas(**dict(LINEAR)))
EQUAL = 1e-5
KINDS: dict[str, tuple[DataCard, dict[str, object]]] = {
    "default": (DIGITS, {"patch_size": 1}),
    "plain": (DIGITS, {"patch_size": 1, "block": "double_conv", "class_conditional": False, "prediction": "noise"}),
    "colour": (FRUITS, {"channels": (4, 32), "attention": True, "prediction": "noise", "timesteps": (19, 5)}),
}


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), guides=("autoguidance",))


def session(data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def difference(data: bytes, loaded: LoadedModel, network: UNet | None = None) -> float:
    """The largest between the file's noise and the denoiser's, over batches of one and of three images."""
    ran, largest, denoiser = session(data), 0.0, loaded.denoiser(CPU, network)
    for batch in (1, 3):
        rng = torch.Generator().manual_seed(batch)
        inputs = {"x_t": torch.randn(batch, *loaded.card.data.shape, generator=rng), "t": torch.arange(batch) * 9}
        if loaded.network.label:
            inputs["label"] = torch.tensor([-1, 2, 0])[-batch:]
        with torch.inference_mode():
            expected = denoiser(*inputs.values()).noise
        (found,) = ran.run(["noise"], {name: value.numpy() for name, value in inputs.items()})
        assert expected.abs().max() > 0.1
        largest = max(largest, float((expected - torch.from_numpy(found)).abs().max()))
    return largest


def facts(data: bytes) -> dict[str, Any]:
    found = session(data).get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_computes_what_torch_computes(kind: str, tmp_path: Path) -> None:
    card, changes = KINDS[kind]
    loaded = reverse.tiny_model(tmp_path, data=card, schedule=LINEAR, **changes)
    data = export.to_onnx(loaded)
    assert difference(data, loaded) < EQUAL
    label = ["label"] if loaded.network.label else []
    assert [each.name for each in session(data).get_inputs()] == ["x_t", "t", *label]
    own = {"alphas_cumprod": SCHEDULE.alphas_cumprod.tolist(), "network": "model"}
    assert facts(data) == loaded.card.model_dump(mode="json") | own
    assert b"unet.py" not in data
    assert str(Path(export.__file__).parents[2]).encode() not in data


def test_a_guide_is_written(guided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "tiny.onnx"
    call("export", "--model", guided, "--out", out, "--guide", "autoguidance")
    data = out.read_bytes()
    assert capsys.readouterr() == (f"{out}: {len(data):,} bytes\n", "")
    loaded = load_model(guided)
    assert difference(data, loaded, loaded.guide) < EQUAL < difference(data, loaded)
    assert facts(data)["network"] == "autoguidance"
    assert data == export.to_onnx(loaded, "autoguidance")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tiny", "--out x.bin", "--out .*x.bin: name a file that ends in .onnx"),
        ("plain", "--guide autoguidance", "--guide autoguidance: this model has no such guide"),
        ("plain", "", re.escape("`pip install onnx onnxscript` installs them")),
    ],
)
def test_refusals_leave_what_was_there(
    name: str, options: str, message: str, guided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {"tiny": guided, "plain": tiny_model(tmp_path, class_conditional=False)}
    if not options:
        monkeypatch.setitem(sys.modules, "onnxscript", None)
    Path("out.onnx").write_bytes(b"before")
    with pytest.raises(UserError, match=message):
        call("export", "--model", paths[name], "--out", "out.onnx", *options.split())
    assert Path("out.onnx").read_bytes() == b"before"
    assert not Path("x.bin").exists()
