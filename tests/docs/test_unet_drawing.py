"""The drawn U-Net of the walk shows the default network for 28 x 28 pixels."""

import re
from pathlib import Path

import torch

from ddpm.unet import UNet, UNetParams
from exact_stages.params import load_params

ROOT = Path(__file__).resolve().parents[2]
TEXTS = re.findall(r"<text[^>]*>([^<]+)</text>", (ROOT / "docs/walk/unet.svg").read_text())


def test_widths_and_resolutions_are_the_default_ones() -> None:
    params = load_params(UNetParams, "model", ROOT / "params.yaml")
    network = UNet(params, (1, 28, 28), classes=10, timesteps=10)
    shapes: list[torch.Size] = []
    for part in [network.stem, *network.down, *network.bottleneck, *network.upsample, *network.up, network.head]:
        part.register_forward_hook(lambda _, given, found: shapes.append(found.shape))
    with torch.no_grad():
        network(torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    assert {f"{shape[2]} \u00d7 {shape[3]}" for shape in shapes} <= set(TEXTS)
    widths = [*(params.for_images((1, 28, 28)).channels or ())]
    assert {str(width) for width in widths} <= set(TEXTS)
    assert {f"{width} + {width}" for width in widths[:2]} <= set(TEXTS), "the skip connections"
    assert {str(params.time_embed_dim), f"{4 * params.time_embed_dim}, {params.time_embed_dim}"} <= set(TEXTS)
    assert TEXTS.count(str(widths[2])) == params.bottleneck_blocks
    assert params.class_conditional
    assert params.prediction == "v"
