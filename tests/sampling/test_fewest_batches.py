"""How many batches images are drawn in, as it is known before a GPU is touched."""

import pytest
import torch

from ddpm.compute.device import Runtime
from ddpm.networks.checkpoint import load_model
from ddpm.sampling.drawing import fewest_batches
from tests.cli.generating import tiny_model


@pytest.mark.parametrize(
    ("device", "count", "batches"),
    [("cpu", 1, 1), ("cpu", 128, 1), ("cpu", 129, 2), ("cuda", 2500, 1), ("cuda", 2501, 2), ("mps", 10_000, 4)],
)
def test_batches_are_as_many_as_the_images_fill(
    device: str, count: int, batches: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    card = load_model(tiny_model(tmp_path_factory.mktemp("model"), class_conditional=False)).card
    assert fewest_batches(card, count, Runtime(torch.device(device), torch.float32)) == batches
