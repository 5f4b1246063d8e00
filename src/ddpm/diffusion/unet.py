"""The time-conditioned U-Net, and its blocks.

After Ronneberger et al. 2015 (arXiv:1505.04597), with the time embedding of Ho et al. 2020 (arXiv:2006.11239).
"""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NO_LABEL = -1  # hides the class of an image from the network
Layer = TypeVar("Layer", bound=nn.Module)


class UNet(nn.Module):
    """The U-Net from x_t, t and labels to an image: down the levels, a bottleneck, and up with skip connections."""

    time_table: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        timesteps: int,
        classes: int = 0,
        *,
        channels: Sequence[int] = (16, 64, 128),
        time_embed_dim: int = 64,
        block: Literal["double_conv", "residual"] = "residual",
        patch_size: int = 1,
        bottleneck_blocks: int = 2,
        attention: bool = False,
    ) -> None:
        """Initialise the weights from torch's global generator.

        Args:
            shape: (C, H, W) of an image.
            classes: number of classes that the network is told; 0: it is not class-conditional.
            channels: width of each level; the last is the bottleneck.
            time_embed_dim: length of the embedding of t, even.
            patch_size: pixels a side that become channels.
            attention: whether self-attention follows each block of the bottleneck.

        Raises:
            ValueError: the levels do not divide the images, or there is no such block.
        """
        super().__init__()
        shrink = patch_size * 2 ** (len(channels) - 1)
        if any(side % shrink for side in shape[1:]):
            raise ValueError(f"channels: these levels and patches must divide images, by {shrink} a side")
        if block not in ("double_conv", "residual"):
            raise ValueError(f"block: {block}; choose double_conv or residual")
        *levels, bottom = channels
        dim = time_embed_dim
        self.patch_size = patch_size
        pixels = shape[0] * patch_size**2
        self.register_buffer("time_table", time_embedding(timesteps, dim), persistent=False)
        if block == "residual":
            build: type[ResidualBlock | DoubleConv] = ResidualBlock
            width = channels[0]
            self.time_mlp: nn.Module = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))
            self.activation: nn.Module = nn.SiLU()
            self.stem: nn.Module = nn.Conv2d(pixels, width, 3, padding=1)
            self.head: nn.Module = nn.Sequential(nn.GroupNorm(1, width), nn.SiLU(), zeroed(nn.Conv2d(width, pixels, 1)))
        else:
            build, width = DoubleConv, pixels
            self.time_mlp, self.activation, self.stem = nn.Identity(), nn.Identity(), nn.Identity()
            self.head = nn.Conv2d(channels[0], pixels, 1)
        self.label = nn.Embedding(classes, dim) if classes else None
        self.down = nn.ModuleList()
        for out in levels:
            self.down.append(build(width, out, dim))
            width = out
        self.bottleneck, self.attention = nn.ModuleList(), nn.ModuleList()
        for _ in range(bottleneck_blocks):
            self.bottleneck.append(build(width, bottom, dim))
            self.attention.append(Attention(bottom) if attention else nn.Identity())
            width = bottom
        self.upsample, self.up = nn.ModuleList(), nn.ModuleList()
        for out in reversed(levels):
            self.upsample.append(Upsample(width, out))
            self.up.append(build(2 * out, out, dim))
            width = out

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predict from x_t (B, C, H, W), t (B,), integers in 0..timesteps-1, and labels (B,); the result is like x_t.

        Only a class-conditional network uses the labels. Their learned embedding is added to the time's (Nichol and
        Dhariwal 2021, arXiv:2102.09672, section 5); NO_LABEL adds nothing.
        """
        with torch.autocast(x_t.device.type, enabled=False):  # casts would take longer than such small products
            times = self._times(t, labels)
        h = self.stem(F.pixel_unshuffle(x_t, self.patch_size))
        skips = []
        for block in self.down:
            skips.append(block(h, next(times)))
            h = F.max_pool2d(skips[-1], 2)
        for block, attention in zip(self.bottleneck, self.attention, strict=True):
            h = attention(block(h, next(times)))
        for upsample, block in zip(self.upsample, self.up, strict=True):
            h = block(torch.cat([upsample(h), skips.pop()], dim=1), next(times))
        return F.pixel_shuffle(self.head(h), self.patch_size)

    def _times(self, t: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
        """Return `block.time` of the embedding of t and labels for each block, in order, by one product."""
        embedding = self.time_mlp(self.time_table[t])
        if self.label:
            if labels is None:
                raise ValueError("labels: a class-conditional network needs them")
            class_embedding = self.label(labels.clamp(min=0))
            embedding = embedding + class_embedding.masked_fill(labels.view(-1, 1) == NO_LABEL, 0)
        layers = [block.time for block in (*self.down, *self.bottleneck, *self.up)]
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        times = F.linear(self.activation(embedding), weight, bias)
        return iter(times.split([layer.out_features for layer in layers], dim=1))


def time_embedding(timesteps: int, dim: int) -> Tensor:
    """Return the sinusoidal embedding of t = 0..timesteps-1, (timesteps, dim), float32.

    Columns i and i + 1, for even i, are the sine and cosine of t / 10000^(i / dim).
    """
    t = torch.arange(timesteps, dtype=torch.float64)[:, None]
    i = torch.arange(0, dim, 2, dtype=torch.float64)
    angles = t / 10000 ** (i / dim)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


class Upsample(nn.ConvTranspose2d):
    """Transposed convolution that makes 2 x 2 pixels of each: one matrix product, since they do not overlap."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Map x (B, in, H, W) to (B, out, 2 H, 2 W)."""
        assert self.bias is not None
        matrix = self.weight.movedim(1, -1).flatten(1)  # (in, 2 * 2 * out), as it lies in channels-last memory
        parts = F.linear(x.movedim(1, -1), matrix.T, self.bias.repeat(4)).unflatten(-1, (2, 2, -1))
        return parts.transpose(2, 3).flatten(1, 2).flatten(2, 3).movedim(-1, 1)


class DoubleConv(nn.Module):
    """The block of plain DDPM: convolution, BatchNorm and ReLU, twice, with the time embedding added in between."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.time = nn.Linear(time_dim, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map x (B, in, H, W) and time (B, out), `self.time` of the embedding, to (B, out, H, W)."""
        h = F.relu(self.norm1(self.conv1(x)))
        h = h + time.to(h.dtype)[:, :, None, None]
        return F.relu(self.norm2(self.conv2(h)))


class ResidualBlock(nn.Module):
    """Pre-activation residual block. Its last convolution starts at zero, so the block starts as its skip connection.

    The norm between the convolutions is over all channels and pixels of an image, so images do not affect one another.
    On a CPU it costs a third of a norm over groups. Its scale and shift come from the time embedding: adaptive group
    normalization (Dhariwal and Nichol 2021, arXiv:2105.05233). The input is not normalised: that would cost a
    thirteenth of a training step, and gain nothing (docs/explanation/design.md).
    """

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.GroupNorm(1, out_channels, affine=False)
        self.time = zeroed(nn.Linear(time_dim, 2 * out_channels))
        self.conv2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map x (B, in, H, W) and time (B, 2 out), `self.time` of the embedding, to (B, out, H, W)."""
        h = self.norm(self.conv1(F.silu(x)))
        scale, shift = time.to(h.dtype)[:, :, None, None].chunk(2, dim=1)
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
        query, key, value = pixels.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, H W, ...)
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        return x + self.out(mixed.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2))


def zeroed(layer: Layer) -> Layer:
    """Set the weights of a layer to zero, and return it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
