"""The network: its parts against their definitions, what it is told, and what is chosen for images of any size."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.diffusion.model import new_network
from ddpm.diffusion.unet import NO_LABEL, Attention, DoubleConv, UNet, Upsample
from ddpm.images.card import DataCard
from ddpm.params.model import ModelParams
from ddpm.pretrained.models import load_pretrained
from tests.small import CPU, DIGITS, FRUITS, normal, randomised, unet_params

BLOCKS = ("double_conv", "residual")


def tiny(block: str = "residual", levels: int = 2, patch_size: int = 2, **changes: object) -> ModelParams:
    given = {"bottleneck_blocks": 2, "attention": True} | changes
    return unet_params(channels=(4, 6, 8)[:levels], block=block, patch_size=patch_size, **given)


def network(params: ModelParams, data: DataCard = DIGITS, timesteps: int = 10) -> UNet:
    return new_network(params, data.shape, len(data.classes), timesteps)


def test_blocks_and_wiring_are_those_with_which_the_pretrained_model_was_trained() -> None:
    loaded = load_pretrained("mnist")
    x_start = torch.zeros(1, 28, 28)
    x_start[:, 4:24, 12:16] = 1  # a stroke, as of the digit 1
    x_start, noise, t = 2 * x_start.expand(4, 1, 28, 28) - 1, normal(4, 1, 28, 28), torch.tensor([50, 200, 400, 600])
    with torch.no_grad():
        found = loaded.denoiser(CPU)(loaded.schedule.q_sample(x_start, t, noise), t, torch.ones(4, dtype=torch.long))
    errors = (found.noise - noise).square().mean(dim=(1, 2, 3))
    # Another processor changes the fifth digit. Another pretrained model has other values; write them here.
    assert errors.tolist() == pytest.approx([0.05606, 0.01935, 0.00838, 0.002289], rel=0.005)


def test_the_network_of_plain_ddpm_has_its_count_of_parameters() -> None:
    plain = unet_params(channels=(64, 128, 256), time_embed_dim=32, block="double_conv", patch_size=1)
    assert sum(weight.numel() for weight in network(plain).parameters()) == 1_884_097


@pytest.mark.parametrize(("channels", "heads"), [(64, 2), (24, 1)])
def test_attention_is_softmax_written_out(channels: int, heads: int) -> None:
    block = randomised(Attention(channels)).double()
    assert block.heads == heads
    x = normal(2, channels, 3, 5).double()
    parts = F.conv2d(block.norm(x), block.qkv.weight, block.qkv.bias).flatten(2).chunk(3, dim=1)
    query, key, value = (part.unflatten(1, (heads, channels // heads)) for part in parts)  # (image, head, width, pixel)
    weights = (query.mT @ key / (channels / heads) ** 0.5).softmax(dim=3)
    mixed = (value @ weights.mT).view(2, channels, 3, 5)
    expected = x + F.conv2d(mixed, block.out.weight, block.out.bias)
    assert (expected - x).abs().max() > 0.1
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


def test_upsampling_is_a_transposed_convolution() -> None:
    block, x = randomised(Upsample(3, 5)).double(), normal(2, 3, 4, 6).double()
    expected = F.conv_transpose2d(x, block.weight, block.bias, stride=2)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


def test_double_conv_is_its_definition_in_evaluation() -> None:
    block = randomised(DoubleConv(3, 5, 6)).double().eval()
    x, embedding = normal(2, 3, 4, 4).double(), normal(2, 6, seed=2).double()

    def conv_norm_relu(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
        x = F.conv2d(x, conv.weight, padding=1)
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()

    h = conv_norm_relu(x, block.conv1, block.norm1)
    h = h + (embedding @ block.time.weight.T + block.time.bias)[:, :, None, None]
    expected = conv_norm_relu(h, block.conv2, block.norm2)
    assert expected.max() > 0.1
    torch.testing.assert_close(block(x, block.time(embedding)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_is_told_its_own_projection_of_time_and_label(block: str) -> None:
    model, t, labels = (
        randomised(network(tiny(block, class_conditional=True))),
        torch.tensor([3, 9]),
        torch.tensor([0, 2]),
    )
    blocks, told = [*model.down, *model.bottleneck, *model.up], []
    for each in blocks:
        each.register_forward_pre_hook(lambda _, given: told.append(given[1]))
    with torch.autocast("cpu", torch.bfloat16):  # the projections stay float32
        model(normal(2, 1, 28, 28), t, labels)
    embedding = model.activation(model.time_mlp(model.time_table[t]) + model.label(labels))
    torch.testing.assert_close(told, [each.time(embedding) for each in blocks], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("data", "levels", "patch_size"), [(DIGITS, 3, 1), (DIGITS, 1, 4), (FRUITS, 2, 2)], ids=str)
@pytest.mark.parametrize("block", BLOCKS)
def test_the_output_is_like_the_input_and_each_image_is_told_its_own_time_and_label(
    block: str, data: DataCard, levels: int, patch_size: int
) -> None:
    # In float64, for the time moves untrained tiny networks only a little.
    params = tiny(block, levels, patch_size, class_conditional=True)
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


def test_patches_keep_pixels_and_colours_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(unet_params(channels=(48,), block="double_conv", patch_size=2), FRUITS)
    # Nothing happens between patching and its inverse: what goes in must come out where it was.
    monkeypatch.setattr(model.bottleneck[0], "forward", lambda x, embedding: x)
    model.head = nn.Conv2d(12, 12, 1, bias=False)
    nn.init.dirac_(model.head.weight)
    x_t = normal(2, *FRUITS.shape)
    assert torch.equal(model(x_t, torch.tensor([0, 1])), x_t)


def test_a_residual_network_starts_by_predicting_exactly_nothing() -> None:
    assert not network(tiny())(normal(2, 1, 28, 28), torch.tensor([0, 9])).any()


def test_without_a_label_the_network_sees_the_time_alone_and_learns_of_no_class() -> None:
    model = randomised(network(tiny(class_conditional=True))).eval()
    x_t, t = normal(3, 1, 28, 28), torch.tensor([2, 5, 9])
    predicted = model(x_t, t, torch.tensor([4, NO_LABEL, NO_LABEL]))
    predicted.square().mean().backward()
    assert model.label.weight.grad.any(1).nonzero().flatten().tolist() == [4]
    with torch.no_grad():
        model.label.weight.zero_()
        assert torch.equal(predicted[1:], model(x_t, t, torch.tensor([4, 4, 4]))[1:])


@pytest.mark.parametrize(
    ("shape", "given", "channels", "patch_size"),
    [
        ((1, 9, 9), {}, (128,), 1),
        ((1, 28, 28), {}, (16, 64, 128), 1),
        ((3, 512, 512), {}, (96, 96, 96, 128), 4),
        ((1, 128, 128), {"channels": (8, 8)}, (8, 8), 2),
        ((1, 128, 128), {"patch_size": 1}, (16, 32, 64, 128), 1),
    ],
)
def test_what_is_not_set_is_chosen_for_the_images(
    shape: tuple[int, int, int], given: dict[str, object], channels: tuple[int, ...], patch_size: int
) -> None:
    found = unet_params(**{"channels": None, "patch_size": None, **given}).for_images(shape)
    assert (found.channels, found.patch_size) == (channels, patch_size)
    assert found.for_images(shape) == found


@pytest.mark.parametrize(
    ("channels", "patch_size", "size", "better"),
    [((8, 8, 8), 2, (16, 28), "16 x 32"), (None, 4, (30, 33), "32 x 32"), (None, None, (29, 28), "28 x 28")],
)
def test_levels_that_do_not_divide_the_images_are_refused_with_a_size_that_fits(
    channels: tuple[int, ...] | None, patch_size: int | None, size: tuple[int, int], better: str
) -> None:
    params = unet_params(channels=channels, patch_size=patch_size)
    height, width = map(int, better.split(" x "))
    assert params.for_images((1, height, width)).channels
    with pytest.raises(ValueError, match=f"^model.channels: .*{better}"):
        new_network(params, (1, *size), 1, 10)
