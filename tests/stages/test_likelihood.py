"""The likelihood stage: which images it takes, and what it tells the network of them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ddpm.compute.randomness import generator
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.pixels import to_float
from ddpm.networks.checkpoint import load_model, save_model
from ddpm.networks.unet import UNet
from ddpm.pipeline.stage import Stage
from ddpm.scoring.likelihood import variational_bound
from stages.likelihood import main
from tests.small import DIGITS, images, unet_params
from tests.stages.written import write_split

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=12, beta_start=0.01, beta_end=0.3))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all that the stage reads: threes and sevens, and a model to which they are very different."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    (tmp_path / "params.yaml").write_text("likelihood: {images: 100, terms: 3, seed: 5}\n")
    for count, name in enumerate(("test", "train"), start=4):
        write_split(name, DIGITS, images(count), torch.tensor([3, 7, 7, 3, 7][:count]))
    model = UNet(unet_params(class_conditional=True, prediction="v"), SCHEDULE, DIGITS)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3, generator=source)
        assert model.label
        model.label.weight *= 10
    save_model(tmp_path / "models/ddpm.safetensors", model, SCHEDULE, (0, 0, 0, 2, 0, 0, 0, 3, 0, 0))
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield tmp_path
    torch.use_deterministic_algorithms(deterministic)


@torch.inference_mode()
def bits_by_hand(name: str, count: int, labels: list[int]) -> float:
    """Of the four images that the stage takes from a split of `count`."""
    loaded = load_model("models/ddpm.safetensors")
    chosen = torch.randperm(count, generator=generator(5, f"likelihood {name}"))[:4]
    noise = [generator(5, f"likelihood {name} image", index) for index in chosen.tolist()]
    given = torch.tensor(labels)[chosen]
    x_start = to_float(images(count)[chosen])
    bound = variational_bound(lambda x_t, t: loaded.model(x_t, t, given), loaded.schedule, x_start, 3, noise)
    return bound.total.mean().item()


def test_the_stage_bounds_each_image_given_its_own_class(stage: Path) -> None:
    main(Stage("likelihood"))
    found = json.loads((stage / "metrics/likelihood/bits.json").read_text())
    assert (found["images"], found["terms"]) == (4, 3)
    for count, name in enumerate(("test", "train"), start=4):
        expected = bits_by_hand(name, count, [3, 7, 7, 3, 7])
        assert found[name]["bits_per_dim"] == pytest.approx(expected, abs=1e-5)
        assert abs(bits_by_hand(name, count, [7, 3, 3, 7, 3]) - expected) > 2e-4
