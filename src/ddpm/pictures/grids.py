"""Draw and encode the figures of a set of samples; images are uint8."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.pictures.figures import (
    captioned,
    class_label,
    enlarged,
    image_gif,
    image_png,
    image_table,
    text_rows,
    tile,
    to_png,
)
from ddpm.scores.copying import nearest_neighbours

GRID_ROWS, GRID_COLUMNS, STRIP_FRAMES, PAIRS, EACH_CLASS = 6, 7, 10, 10, 10
STILL, MOVING = 112, 28  # about the pixels of an image's longer side, in a still and in an animation
MOVING_COLUMNS, MOVING_WIDTH = 8, 256  # images in a row, and its pixels without gaps
MOST_CLASSES = 20


def caption_of(made: Mapping[str, Any]) -> str:
    """Say how a set of samples was made, by the facts in its file, in one line."""
    evaluations, guidance, kept = made["evaluations"], made["guidance"], made.get("kept", 1)
    return (
        f"{made['set']}: {made['sampler']}, {evaluations:,} evaluation{'s' if evaluations > 1 else ''}, "
        + (f"guidance {guidance:g}, " if guidance != 1 else "no guidance, ")
        + (f"filtered: {kept:.1%} kept" if kept < 1 else "unfiltered")
    )


def preview_pictures(
    images: Tensor, x_t: Tensor, pred_x_start: Tensor, kept_t: list[int], caption: str
) -> dict[str, bytes]:
    """Draw, by file name: a grid of samples, one sample's strip from noise to image, and the reverse process as a GIF.

    Shapes: images (N, C, H, W), x_t and pred_x_start (frames, N, C, H, W). A frame is what the step at t leaves.
    """
    last = slice(-STRIP_FRAMES, None)
    strip = torch.stack([x_t[last, 0], pred_x_start[last, 0]])
    titles = [f"t = {t}" for t in kept_t[last]]
    grid = tile(images[: GRID_ROWS * GRID_COLUMNS], GRID_COLUMNS, spacing(images))
    return {
        "samples.png": image_png(captioned(enlarged(grid, enlargement(images, STILL)), caption), scale=1),
        "denoising.png": to_png(
            image_table(strip, titles, f"One sample after the step at t, and the estimate of x_0 below\n{caption}")
        ),
        "reverse.gif": _reverse(x_t, pred_x_start, caption),
    }


def neighbours_picture(samples: Tensor, train: Tensor, caption: str) -> bytes:
    """Draw the first samples above, and the training image nearest to each below; both (N, C, H, W)."""
    shown = samples[:PAIRS]
    nearest = nearest_neighbours(shown, train)
    table = torch.stack([shown, train[nearest.nearest]])
    titles = [f"{distance:.3f}" for distance in nearest.distance.tolist()]
    title = f"Samples above, their nearest training images below (root-mean-square difference)\n{caption}"
    return to_png(image_table(table, titles, title))


def by_class_picture(
    images: Tensor, labels: Tensor, names: Sequence[str], caption: str, clear: Mapping[str, float] | None = None
) -> bytes:
    """Draw the first samples (N, C, H, W) of each class, labels (N,), in a row next to its name.

    Only the first MOST_CLASSES classes are shown; a line below counts the others.

    Args:
        clear: share of clear samples by class, to write after its name.
    """
    classes = labels.unique().tolist()
    shown = classes[:MOST_CLASSES]
    rows = [images[labels == label][:EACH_CLASS] for label in shown]
    shares = [f": {clear[names[label]]:.0%} clear" if clear and names[label] in clear else "" for label in shown]
    titles = [class_label(names, label) + share for label, share in zip(shown, shares, strict=True)]
    picture = _named_rows(rows, titles)
    if len(classes) > len(shown):
        picture = captioned(picture, f"and {len(classes) - len(shown)} more")
    return image_png(captioned(picture, caption), scale=1)


def enlargement(images: Tensor, pixels: int) -> int:
    """Return the scale that enlarges the longer side of images (..., H, W) to about `pixels`; at least 1."""
    return max(1, round(pixels / max(images.shape[-2:])))


def spacing(images: Tensor) -> int:
    """Return the gap between images (..., H, W) in pixels, before they are enlarged."""
    return max(1, round(max(images.shape[-2:]) / 14))


def _reverse(x_t: Tensor, pred_x_start: Tensor, caption: str) -> bytes:
    """Animate frames (frames, N, C, H, W) side by side; few of large images, because the file goes into git."""
    columns = max(1, min(MOVING_COLUMNS, MOVING_WIDTH // max(x_t.shape[-2:])))
    count = x_t.shape[1] if columns == MOVING_COLUMNS else columns**2
    frames = [
        torch.cat([tile(side[:count], columns, spacing(x_t)) for side in pair], dim=2)
        for pair in zip(x_t, pred_x_start, strict=True)
    ]
    scale = enlargement(x_t, MOVING)
    return image_gif([captioned(enlarged(frame, scale), caption) for frame in frames], scale=1)


def _named_rows(rows: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """Arrange rows of at most EACH_CLASS images, (N, C, H, W) each, next to their names, as one image (C, H, W)."""
    scale, gap = enlargement(rows[0], STILL), spacing(rows[0])
    filled = [F.pad(row, (0, 0) * 3 + (0, EACH_CLASS - len(row)), value=255) for row in rows]
    picture = enlarged(tile(torch.cat(filled), EACH_CLASS, gap), scale)
    beside = text_rows(names, scale * (rows[0].shape[2] + gap))
    edge = picture.shape[1] - beside.shape[1]
    beside = F.pad(beside, (0, 0, edge // 2, edge - edge // 2), value=255)
    return torch.cat([beside.expand(len(picture), -1, -1), picture], dim=2)
