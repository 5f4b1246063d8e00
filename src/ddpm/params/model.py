"""The section `model`."""

import math
from typing import Annotated, Literal

from pydantic import Field

from ddpm.images.card import Shape, halvings
from exact_stages.params import Section

WIDTHS = ((128,), (64, 128), (16, 64, 128), (16, 32, 64, 128))  # default channels, by the number of halvings
COLOUR_WIDTH = 32  # least width of the first level for colour; 16 channels leave more noise (studies/small_sets)
MOST_HALVINGS = 3  # larger images enter as patches
Channels = Annotated[int, Field(ge=1, le=2048)]


class ModelParams(Section):
    """Width, depth and kind of the network; params.yaml explains each choice."""

    channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=5)] | None
    time_embed_dim: Annotated[int, Field(ge=2, le=1024, multiple_of=2)]
    block: Literal["double_conv", "residual"]
    patch_size: Literal[1, 2, 4] | None
    bottleneck_blocks: Annotated[int, Field(ge=1, le=16)]
    attention: bool
    class_conditional: bool
    prediction: Literal["noise", "v"]

    def for_images(self, shape: Shape) -> "ModelParams":
        """Return these params with unset ones chosen for images of shape (C, H, W).

        The bottleneck has about 5 to 9 pixels a side, and more for images above 288. Large images enter as patches. The
        first level is at least twice as wide as its input, and has at least COLOUR_WIDTH channels for coloured images.

        Raises:
            ValueError: the levels do not divide the images.
        """
        halved = halvings(*shape[1:])
        patch = self.patch_size or min(2 ** max(0, halved - MOST_HALVINGS), 4)
        channels = self.channels
        if channels is None:
            levels = max(0, halved - int(math.log2(patch)))
            least = max(-(-2 * shape[0] * patch**2 // 16) * 16, COLOUR_WIDTH if shape[0] > 1 else 1)
            channels = tuple(max(width, least) for width in WIDTHS[min(levels, MOST_HALVINGS)])
        shrink = patch * 2 ** (len(channels) - 1)
        if any(side % shrink for side in shape[1:]):
            sizes = " x ".join(str(max(1, round(side / shrink)) * shrink) for side in shape[1:])
            raise ValueError(
                f"model.channels: {len(channels)} levels and model.patch_size {patch} shrink images by {shrink}, which "
                f"must divide {shape[1]} x {shape[2]}; set data.image_size to {sizes}, or change levels or patch_size"
            )
        return self.model_copy(update={"channels": channels, "patch_size": patch})
