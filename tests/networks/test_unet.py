"""The network: the article's shapes and count, and what it is told."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.images.card import DataCard
from ddpm.unet import UNet, UNetParams, with_fourier_features
from tests.networks.random_weights import normal, randomised
from tests.small import DIGITS, FRUITS, unet_params

ARTICLE = unet_params(channels=(64, 128, 256), time_embed_dim=32, block="double_conv", patch_size=1)
BLOCKS = pytest.mark.parametrize("block", ["double_conv", "residual"])


def tiny(block: str = "residual", levels: int = 2, patch_size: int = 2, **changes: object) -> UNetParams:
    given = {"bottleneck_blocks": 2, "attention": True} | changes
    return unet_params(channels=(4, 6, 8)[:levels], block=block, patch_size=patch_size, **given)


def network(params: UNetParams, data: DataCard = DIGITS, timesteps: int = 10) -> UNet:
    return UNet(params, data.shape, len(data.classes), timesteps)


def test_article_has_its_count_of_parameters_shapes_and_wiring() -> None:
    model = network(ARTICLE, timesteps=1000).eval()
    assert sum(weight.numel() for weight in model.parameters()) == 1_884_097
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str, given: tuple[Tensor, ...], out: Tensor) -> None:
        inputs[name], outputs[name] = given[0], out

    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, given, out, name=name: keep(name, given, out))
    with torch.no_grad():
        model(normal(2, 1, 28, 28), torch.tensor([0, 999]))
    shapes = {
        "down.0": (2, 64, 28, 28),
        "down.1": (2, 128, 14, 14),
        "bottleneck.0": (2, 256, 7, 7),
        "upsample.0": (2, 128, 14, 14),
        "up.0": (2, 128, 14, 14),
        "upsample.1": (2, 64, 28, 28),
        "up.1": (2, 64, 28, 28),
        "head": (2, 1, 28, 28),
    }
    assert {name: tuple(outputs[name].shape) for name in shapes} == shapes
    assert torch.equal(inputs["down.1"], F.max_pool2d(outputs["down.0"], 2))
    assert torch.equal(inputs["bottleneck.0"], F.max_pool2d(outputs["down.1"], 2))
    assert torch.equal(inputs["upsample.0"], outputs["bottleneck.0"])
    # The transposed convolution's output comes first, then the skip.
    assert torch.equal(inputs["up.0"], torch.cat([outputs["upsample.0"], outputs["down.1"]], dim=1))
    assert torch.equal(inputs["up.1"], torch.cat([outputs["upsample.1"], outputs["down.0"]], dim=1))
    assert torch.equal(outputs[""], outputs["head"])


@pytest.mark.parametrize("attention", [False, True])
# Levels and patch size: every pair that 28 x 28 pixels allow; of 16 x 8 they allow more.
@pytest.mark.parametrize(("levels", "patch_size"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 4)])
@pytest.mark.parametrize("data", [DIGITS, FRUITS], ids=lambda data: data.name)
@BLOCKS
def test_the_output_is_like_the_input_and_each_image_is_told_its_own_time_and_label(
    block: str, data: DataCard, levels: int, patch_size: int, attention: bool
) -> None:
    # In float64, for the time moves untrained tiny networks only a little.
    params = tiny(block, levels, patch_size, attention=attention, class_conditional=True, fourier_features=(3, 5))
    model = randomised(network(params, data)).double().eval()
    x_t, t, labels = normal(2, *data.shape).double(), torch.tensor([3, 9]), torch.tensor([0, 2])
    with torch.no_grad():
        output, earlier, other = (
            model(x_t, *told) for told in ((t, labels), (torch.tensor([3, 2]), labels), (t, torch.tensor([0, 1])))
        )
    assert (output.shape, output.dtype) == (x_t.shape, x_t.dtype)
    for changed in (earlier, other):
        assert torch.equal(changed[0], output[0])
        assert (changed[1] - output[1]).abs().max() > 1e-5


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_patches_keep_pixels_and_colours_in_place(patch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(unet_params(channels=(48,), block="double_conv", patch_size=patch_size), FRUITS)
    # Nothing happens between patching and its inverse: what goes in must come out where it was.
    width = 3 * patch_size**2
    monkeypatch.setattr(model.bottleneck[0], "forward", lambda x, embedding: x)
    model.head = nn.Conv2d(width, width, 1, bias=False)
    nn.init.dirac_(model.head.weight)
    x_t = normal(2, *FRUITS.shape)
    assert torch.equal(model(x_t, torch.tensor([0, 1])), x_t)


def test_a_residual_network_starts_by_predicting_exactly_nothing() -> None:
    assert not network(tiny())(normal(2, 1, 28, 28), torch.tensor([0, 9])).any()


@BLOCKS
def test_a_label_is_a_learned_vector_that_joins_the_time(block: str) -> None:
    model = randomised(network(tiny(block, class_conditional=True))).eval()
    told: list[Tensor] = []
    for part in (*model.down, *model.bottleneck, *model.up):
        part.register_forward_hook(lambda _, given, __: told.append(given[1]))
    t, labels = torch.tensor([0, 5, 9]), torch.tensor([3, 0, 9])
    with torch.no_grad():
        model(normal(3, 1, 28, 28), t, labels)
        time = model.time_table[t]
        if block != "double_conv":
            first, _, last = model.time_mlp
            time = F.silu(time @ first.weight.T + first.bias) @ last.weight.T + last.bias
        expected = time + model.label.weight[labels]
        expected = F.silu(expected) if block != "double_conv" else expected
    assert len(told) == 4
    for embedding in told:
        torch.testing.assert_close(embedding, expected, rtol=1e-5, atol=1e-6)


def test_labels_are_needed_by_networks_that_are_told_them_alone() -> None:
    plain, conditional = (randomised(network(tiny(class_conditional=each))).eval() for each in (False, True))
    x_t, t = normal(2, 1, 28, 28), torch.tensor([2, 9])
    assert torch.equal(plain(x_t, t, torch.tensor([3, 4])), plain(x_t, t))
    with pytest.raises(ValueError, match="labels"):
        conditional(x_t, t)


def test_fourier_features_magnify_what_bfloat16_rounds_away() -> None:
    x_t = torch.full((1, 1, 4, 4), -1.0)
    noisy = x_t + 1e-3
    assert torch.equal(x_t.bfloat16(), noisy.bfloat16())
    features = with_fourier_features(noisy, (3, 5))
    assert torch.equal(features[:, :1], noisy)
    level = noisy[0, 0, 0, 0].item()
    expected = torch.tensor([f(2**n * math.pi * level) for n in (3, 5) for f in (math.sin, math.cos)])
    torch.testing.assert_close(features[0, 1:, 2, 1], expected, atol=1e-4, rtol=0)
    assert not torch.equal(features.bfloat16(), with_fourier_features(x_t, (3, 5)).bfloat16())
