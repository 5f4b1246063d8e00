"""Building blocks of the U-Net: time embedding, convolutional blocks, attention."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = TypeVar("Layer", bound=nn.Module)


def time_embedding(timesteps: int, dim: int) -> Tensor:
    """Return the sinusoidal embedding of t = 0..timesteps-1, (timesteps, dim), float32.

    Columns i and i + 1, for even i, are the sine and cosine of t / 10000^(i / dim).
    """
    t = torch.arange(timesteps, dtype=torch.float64)[:, None]
    i = torch.arange(0, dim, 2, dtype=torch.float64)
    angles = t / 10000 ** (i / dim)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def with_fourier_features(x: Tensor, octaves: tuple[int, ...]) -> Tensor:
    """Append sin(2^n pi x) and cos(2^n pi x) for each octave n to images x (B, C, H, W), along the channels.

    They magnify small differences (Kingma et al. 2021, arXiv:2107.00630, appendix C). In an almost clean image, the
    noise is a few thousandths of the image, and bfloat16, which has eight bits, hardly resolves it.
    """
    angles = [2**n * math.pi * x for n in octaves]
    return torch.cat([x, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))], dim=1)


class DoubleConv(nn.Module):
    """The article's block: convolution, BatchNorm and ReLU, twice, with the time embedding added in between."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.time = nn.Linear(time_dim, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, in, H, W) and embedding (B, time_dim) to (B, out, H, W)."""
        h = F.relu(self.norm1(self.conv1(x))) + self.time(embedding)[:, :, None, None]
        return F.relu(self.norm2(self.conv2(h)))


class ResidualBlock(nn.Module):
    """Pre-activation residual block. Its last convolution starts at zero, so the block starts as its skip connection.

    The norm between the convolutions is over all channels and pixels of an image, so images do not affect one another.
    On a CPU it costs a third of a norm over groups. Its scale and shift come from the time embedding: adaptive group
    normalization (Dhariwal and Nichol 2021, arXiv:2105.05233). The input is not normalised: that would cost a
    thirteenth of a training step, and gain nothing (studies/recipe/README.md).
    """

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.GroupNorm(1, out_channels, affine=False)
        self.time = zeroed(nn.Linear(time_dim, 2 * out_channels))
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, in, H, W) and embedding (B, time_dim) to (B, out, H, W)."""
        scale, shift = self.time(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm(self.conv1(F.silu(x)))
        return self.skip(x) + self.conv2(F.silu(torch.addcmul(shift, h, 1 + scale)))


class Attention(nn.Module):
    """Self-attention over the pixels, with a residual connection.

    Heads have 32 channels, or all channels if 32 does not divide them. For few pixels on a CPU this is faster than
    torch's scaled_dot_product_attention, especially the gradient.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // 32 if channels % 32 == 0 else 1
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to (B, C, H, W)."""
        pixels = self.qkv(self.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)
        query, key, value = pixels.unflatten(-1, (3, self.heads, -1)).permute(
            2, 0, 3, 1, 4
        )  # (B, heads, H W, C / heads)
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        return x + self.out(mixed.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2))


def zeroed(layer: Layer) -> Layer:
    """Set the weights of a layer to zero, and return it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
