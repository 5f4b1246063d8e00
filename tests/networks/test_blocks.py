"""The parts of the network, each against its definition."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.unet import Attention, DoubleConv, ResidualBlock, time_embedding
from tests.networks.random_weights import normal, randomised


def test_time_embedding_is_interleaved_sines_and_cosines() -> None:
    table = time_embedding(1000, 32)
    assert table.shape == (1000, 32)
    assert table.dtype == torch.float32
    for t in (0, 1, 7, 500, 999):
        for i in range(0, 32, 2):
            angle = t / 10000 ** (i / 32)
            # Half a unit in the last place of float32 near 1.
            assert table[t, i].item() == pytest.approx(math.sin(angle), abs=6e-8)
            assert table[t, i + 1].item() == pytest.approx(math.cos(angle), abs=6e-8)


def whole_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Norm over all channels and pixels of an image, written out."""
    mean, variance = x.mean(dim=(1, 2, 3), keepdim=True), x.var(dim=(1, 2, 3), keepdim=True, unbiased=False)
    whitened = (x - mean) / (variance + 1e-5).sqrt()
    return whitened * norm.weight[:, None, None] + norm.bias[:, None, None] if norm.affine else whitened


@pytest.mark.parametrize(("channels", "heads"), [(64, 2), (32, 1), (24, 1)])
def test_attention_is_softmax_written_out(channels: int, heads: int) -> None:
    block = randomised(Attention(channels)).double()
    assert block.heads == heads
    x = normal(2, channels, 3, 5).double()
    query, key, value = F.conv2d(whole_norm(x, block.norm), block.qkv.weight, block.qkv.bias).flatten(2).chunk(3, dim=1)
    width = channels // heads
    mixed = torch.empty_like(query)
    for image in range(2):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = (query[image, part].T @ key[image, part] / width**0.5).softmax(dim=1)
            mixed[image, part] = (weights @ value[image, part].T).T
    expected = x + F.conv2d(mixed.unflatten(2, (3, 5)), block.out.weight, block.out.bias)
    assert (expected - x).abs().max() > 0.1
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("in_channels", "out_channels"), [(3, 5), (4, 4)])
def test_residual_block_is_its_definition(in_channels: int, out_channels: int) -> None:
    block = randomised(ResidualBlock(in_channels, out_channels, 6)).double()
    x, embedding = normal(2, in_channels, 4, 4).double(), normal(2, 6, seed=2).double()
    h = F.conv2d(F.silu(x), block.conv1.weight, block.conv1.bias, padding=1)
    time = (embedding @ block.time.weight.T + block.time.bias)[:, :, None, None]
    h = whole_norm(h, block.norm) * (1 + time[:, :out_channels]) + time[:, out_channels:]
    h = F.conv2d(F.silu(h), block.conv2.weight, block.conv2.bias, padding=1)
    same = in_channels == out_channels
    skip = x if same else F.conv2d(x, block.skip.weight, block.skip.bias)
    torch.testing.assert_close(block(x, embedding), skip + h, rtol=1e-10, atol=1e-10)


def test_double_conv_is_the_articles_in_evaluation() -> None:
    block = randomised(DoubleConv(3, 5, 6)).double().eval()
    x, embedding = normal(2, 3, 4, 4).double(), normal(2, 6, seed=2).double()

    def conv_norm_relu(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
        assert conv.bias is None
        x = F.conv2d(x, conv.weight, padding=1) - norm.running_mean[:, None, None]
        x = x / (norm.running_var[:, None, None] + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
        return x.clamp(min=0)

    h = conv_norm_relu(x, block.conv1, block.norm1)
    h = h + (embedding @ block.time.weight.T + block.time.bias)[:, :, None, None]
    expected = conv_norm_relu(h, block.conv2, block.norm2)
    assert expected.max() > 0.1
    torch.testing.assert_close(block(x, embedding), expected, rtol=1e-10, atol=1e-10)
