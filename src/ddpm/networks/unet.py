"""The time-conditioned U-Net: the article's network, and the options that make it better for the same compute.

After Ronneberger et al. 2015 (arXiv:1505.04597), with the time embedding of Ho et al. 2020 (arXiv:2006.11239).
"""

from typing import Annotated, Literal, Self, TypeVar

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.data.images import IMAGE_SHAPE
from ddpm.data.labels import CLASSES
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.runtime.params import Section

Channels = Annotated[int, Field(ge=1, le=2048)]
Layer = TypeVar("Layer", bound=nn.Module)


class UNetParams(Section):
    """Width, depth and kind of the network; see params.yaml for what each choice means."""

    channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=5)]
    time_embed_dim: Annotated[int, Field(ge=2, le=1024, multiple_of=2)]
    block: Literal["double_conv", "residual"]
    patch_size: Literal[1, 2, 4]
    bottleneck_blocks: Annotated[int, Field(ge=1, le=16)]
    attention: bool
    class_conditional: bool
    prediction: Literal["noise", "v"]

    @field_validator("patch_size", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, bool):  # Literal takes true for 1
            raise ValueError("must be 1, 2 or 4")
        return value

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        shrink = self.patch_size * 2 ** (len(self.channels) - 1)
        if IMAGE_SHAPE[-1] % shrink:
            raise ValueError(
                f"{len(self.channels)} levels of channels with patch_size {self.patch_size} shrink the image by "
                f"{shrink}, which must divide {IMAGE_SHAPE[-1]}"
            )
        return self


def time_embedding(timesteps: int, dim: int) -> Tensor:
    """The sinusoids of t = 0..timesteps-1, interleaved sin, cos, sin, cos ...; shape (timesteps, dim), float32.

    Columns i and i + 1, for even i, are the sine and cosine of t / 10000^(i / dim).
    """
    t = torch.arange(timesteps, dtype=torch.float64)[:, None]
    i = torch.arange(0, dim, 2, dtype=torch.float64)
    angles = t / 10000 ** (i / dim)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


class DoubleConv(nn.Module):
    """The article's block: twice convolution, BatchNorm and ReLU, the time added between."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.time = nn.Linear(time_dim, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Shapes: x (B, in, H, W), embedding (B, time_dim) -> (B, out, H, W)."""
        h = F.relu(self.norm1(self.conv1(x))) + self.time(embedding)[:, :, None, None]
        return F.relu(self.norm2(self.conv2(h)))


class ResidualBlock(nn.Module):
    """Pre-activation residual block; the last convolution starts at zero, so the block starts as its skip.

    The norm is over all channels and pixels of an image: images do not depend on one another, and on a CPU it costs
    a third of a norm over groups. The second one takes scale and shift from the time (Dhariwal and Nichol 2021,
    arXiv:2105.05233, "adaptive group normalization").
    """

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(1, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(1, out_channels, affine=False)
        self.time = _zero(nn.Linear(time_dim, 2 * out_channels))
        self.conv2 = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Shapes: x (B, in, H, W), embedding (B, time_dim) -> (B, out, H, W)."""
        scale, shift = self.time(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return self.skip(x) + self.conv2(F.silu(torch.addcmul(shift, h, 1 + scale)))


class Attention(nn.Module):
    """Self-attention over the pixels, with a residual connection; heads of 32 channels where they divide.

    Written out: for so few pixels, torch's own scaled_dot_product_attention is slower on a CPU, its gradient above all.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // 32 if channels % 32 == 0 else 1
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, C, H, W) -> (B, C, H, W)."""
        pixels = self.qkv(self.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)
        query, key, value = pixels.unflatten(-1, (3, self.heads, -1)).permute(
            2, 0, 3, 1, 4
        )  # (B, heads, H W, C / heads)
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        return x + self.out(mixed.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2))


class UNet(nn.Module):
    """Predicts the noise in x_t: down through the levels, a bottleneck, and up again with skip connections."""

    time_table: Tensor
    signal: Tensor
    spread: Tensor

    def __init__(self, params: UNetParams, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.params = params
        *levels, bottom = params.channels
        dim = params.time_embed_dim
        pixels = IMAGE_SHAPE[0] * params.patch_size**2
        self.register_buffer("time_table", time_embedding(schedule.timesteps, dim), persistent=False)
        self.register_buffer("signal", schedule.sqrt_alphas_cumprod.float().view(-1, 1, 1, 1), persistent=False)
        self.register_buffer(
            "spread", schedule.sqrt_one_minus_alphas_cumprod.float().view(-1, 1, 1, 1), persistent=False
        )
        if params.block == "residual":
            block: type[ResidualBlock | DoubleConv] = ResidualBlock
            width = params.channels[0]
            self.time_mlp: nn.Module = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))
            self.activation: nn.Module = nn.SiLU()
            self.stem: nn.Module = nn.Conv2d(pixels, width, 3, padding=1)
            self.head: nn.Module = nn.Sequential(nn.GroupNorm(1, width), nn.SiLU(), _zero(nn.Conv2d(width, pixels, 1)))
        else:
            block, width = DoubleConv, pixels
            self.time_mlp, self.activation, self.stem = nn.Identity(), nn.Identity(), nn.Identity()
            self.head = nn.Conv2d(params.channels[0], pixels, 1)
        self.label = nn.Embedding(CLASSES, dim) if params.class_conditional else None
        self.down = nn.ModuleList()
        for channels in levels:
            self.down.append(block(width, channels, dim))
            width = channels
        self.bottleneck, self.attention = nn.ModuleList(), nn.ModuleList()
        for _ in range(params.bottleneck_blocks):
            self.bottleneck.append(block(width, bottom, dim))
            self.attention.append(Attention(bottom) if params.attention else nn.Identity())
            width = bottom
        self.upsample, self.up = nn.ModuleList(), nn.ModuleList()
        for channels in reversed(levels):
            self.upsample.append(nn.ConvTranspose2d(width, channels, 2, stride=2))
            self.up.append(block(2 * channels, channels, dim))
            width = channels

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Shapes: x_t (B, 1, 28, 28), t (B,) of integers in 0..timesteps-1; the predicted noise is like x_t.

        The labels (B,), integers, are what is in the pictures; only a class-conditional network looks at them. They
        join the time, each as a learned vector (Nichol and Dhariwal 2021, arXiv:2102.09672, section 5).

        With prediction "v" the layers give v = signal eps - spread x_0, and eps is spread x_t + signal v (Salimans and
        Ho 2022, arXiv:2202.00512, appendix D). Where x_t is nearly all noise, it is then handed on as it is, and the
        layers only correct it: through them, in bfloat16 above all, it would lose more than the trace of the image.
        """
        embedding = self.time_mlp(self.time_table[t])
        if self.label:
            if labels is None:
                raise ValueError("a class-conditional network needs labels")
            embedding = embedding + self.label(labels)
        embedding = self.activation(embedding)
        h = self.stem(F.pixel_unshuffle(x_t, self.params.patch_size))
        skips = []
        for block in self.down:
            skips.append(block(h, embedding))
            h = F.max_pool2d(skips[-1], 2)
        for block, attention in zip(self.bottleneck, self.attention, strict=True):
            h = attention(block(h, embedding))
        for upsample, block in zip(self.upsample, self.up, strict=True):
            h = block(torch.cat([upsample(h), skips.pop()], dim=1), embedding)
        out = F.pixel_shuffle(self.head(h), self.params.patch_size)
        if self.params.prediction == "noise":
            return out
        return self.spread[t] * x_t + self.signal[t] * out.float()


def _zero(layer: Layer) -> Layer:
    """The layer, set to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
