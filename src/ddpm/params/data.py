"""The section `data`."""

from typing import Annotated, Any, Literal

from PIL import ImageColor
from pydantic import AfterValidator, BeforeValidator, Field

from ddpm.images.card import MAX_SIDE
from exact_stages.params import Section

Limits = tuple[float, float]


def _is_colour(text: str) -> str:
    try:
        ImageColor.getrgb(text)
    except ValueError:
        raise ValueError("must be a colour such as white, black or #a0b0c0") from None
    return text


def _size(value: object) -> object:
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else value
    if isinstance(sides, list | tuple) and len(sides) == 2 and all(map(_is_side, sides)):
        return tuple(sides)
    raise ValueError(f"must be null, or pixels such as 32 or [48, 32] (height, width), at most {MAX_SIDE}")


def _is_side(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_SIDE


def _ascending(limits: Limits | None) -> Limits | None:
    if limits and limits[0] >= limits[1]:
        raise ValueError("must be null, or [low, high] with low below high")
    return limits


class DataParams(Section):
    """The source of the images and their conversion; None means chosen from the images."""

    set: Annotated[str, Field(min_length=1)]
    image_size: Annotated[tuple[int, int] | None, BeforeValidator(_size)]
    colour: bool | None
    fit: Literal["crop", "pad", "stretch"]
    background: Annotated[str, AfterValidator(_is_colour)]
    range: Annotated[Limits | None, AfterValidator(_ascending)] = None
    test: Annotated[float, Field(gt=0, le=0.5)]

    @property
    def background_colour(self) -> tuple[int, int, int]:
        """Return the background as three levels."""
        red, green, blue = ImageColor.getrgb(self.background)[:3]
        return red, green, blue

    @property
    def wanted(self) -> dict[str, Any]:
        """Return what the images are to become, as arguments of `preparation.target_of`."""
        chosen = {"image_size": self.image_size, "colour": self.colour, "fit": self.fit}
        return {**chosen, "background": self.background_colour, "limits": self.range}
