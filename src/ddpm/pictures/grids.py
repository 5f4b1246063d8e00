"""The pictures of a set of samples, encoded; images are uint8."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.pictures.figures import (
    FONT,
    class_histogram,
    class_label,
    enlarged,
    image_gif,
    image_png,
    image_table,
    text_rows,
    tile,
    to_png,
)
from ddpm.scoring.copying import nearest_neighbours
from ddpm.scoring.scores import class_shares

GRID_ROWS, GRID_COLUMNS, STRIP_FRAMES, PAIRS, EACH_CLASS = 6, 7, 10, 10, 10
STILL, MOVING = 112, 28  # pixels of an image's longer side in a picture and in an animation, about
MOVING_COLUMNS, MOVING_WIDTH = 8, 512  # images, and pixels without gaps
MOST_CLASSES = 20


def gallery_pictures(images: Tensor, x_t: Tensor, pred_x_start: Tensor, kept_t: list[int]) -> dict[str, bytes]:
    """By file name: a grid of samples, one's strip from noise to image, the reverse process as an animation.

    Shapes: images (N, C, H, W), x_t and pred_x_start (frames, N, C, H, W).
    """
    last = slice(-STRIP_FRAMES, None)
    strip = torch.stack([x_t[last, 0], pred_x_start[last, 0]])
    titles = [f"t = {t}" for t in kept_t[last]]
    grid = tile(images[: GRID_ROWS * GRID_COLUMNS], GRID_COLUMNS, spacing(images))
    return {
        "samples.png": image_png(grid, enlargement(images, STILL)),
        "denoising.png": to_png(image_table(strip, titles, "One sample: x_t above, the estimate of x_0 below")),
        "reverse.gif": _reverse(x_t, pred_x_start),
    }


def neighbours_picture(samples: Tensor, train: Tensor) -> bytes:
    """The first samples above, the training image nearest to each below; both (N, C, H, W)."""
    shown = samples[:PAIRS]
    nearest = nearest_neighbours(shown, train)
    table = torch.stack([shown, train[nearest.nearest]])
    titles = [f"{distance:.3f}" for distance in nearest.distance.tolist()]
    title = "Samples above, their nearest training images below (root-mean-square difference)"
    return to_png(image_table(table, titles, title))


def classes_picture(samples: Tensor, train: Tensor, names: Sequence[str]) -> bytes:
    """How often each class is recognised among the samples and among the training images, labels (N,)."""
    shares = {"samples": class_shares(samples, len(names)), "training images": class_shares(train, len(names))}
    return to_png(class_histogram(shares, "Classes as classifier b sees them", names))


def by_class_picture(images: Tensor, labels: Tensor, names: Sequence[str]) -> bytes:
    """The first samples of each class, a row for each, beside its name; (N, C, H, W) and labels (N,).

    Of more than MOST_CLASSES classes these are the first, and a last line says so.
    """
    classes = labels.unique().tolist()
    shown = classes[:MOST_CLASSES]
    rows = [images[labels == label][:EACH_CLASS] for label in shown]
    picture = _named_rows(rows, [class_label(names, label) for label in shown])
    if len(classes) > len(shown):
        below = text_rows([f"and {len(classes) - len(shown)} more"], 2 * FONT)
        room = picture.shape[2] - below.shape[2]
        picture = torch.cat([picture, _white(below, picture, (0, room))], dim=1)
    return image_png(picture, scale=1)


def rare_picture(rows: Mapping[int, tuple[Tensor, Tensor]], names: Sequence[str]) -> bytes:
    """For each class three rows: some real images, some drawn ones, and the real one that is nearest to each of these.

    Args:
        rows: of each label the real images (N, C, H, W) and those drawn (M, C, H, W).
        names: of all classes.
    """
    table, titles = [], []
    for label, (few, drawn) in rows.items():
        shown = drawn[:EACH_CLASS]
        table += [few[:EACH_CLASS], shown, few[nearest_neighbours(shown, few).nearest]]
        titles += [f"{class_label(names, label)}: {each}" for each in ("real", "drawn", "nearest")]
    return image_png(_named_rows(table, titles), scale=1)


def enlargement(images: Tensor, pixels: int) -> int:
    """By which images (..., H, W) have about so many on the longer side, or more."""
    return max(1, round(pixels / max(images.shape[-2:])))


def spacing(images: Tensor) -> int:
    """Pixels between images (..., H, W), before they are enlarged."""
    return max(1, round(max(images.shape[-2:]) / 14))


def _reverse(x_t: Tensor, pred_x_start: Tensor) -> bytes:
    """Frames (frames, N, C, H, W) side by side; of large images a few are enough, or it would have tens of MB."""
    columns = max(1, min(MOVING_COLUMNS, MOVING_WIDTH // max(x_t.shape[-2:])))
    count = x_t.shape[1] if columns == MOVING_COLUMNS else columns**2
    frames = [
        torch.cat([tile(side[:count], columns, spacing(x_t)) for side in pair], dim=2)
        for pair in zip(x_t, pred_x_start, strict=True)
    ]
    return image_gif(frames, enlargement(x_t, MOVING))


def _named_rows(rows: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """Rows of at most EACH_CLASS images, (N, C, H, W) each, beside their names, as one image (C, H, W)."""
    scale, gap = enlargement(rows[0], STILL), spacing(rows[0])
    filled = [F.pad(row, (0, 0) * 3 + (0, EACH_CLASS - len(row)), value=255) for row in rows]
    picture = enlarged(tile(torch.cat(filled), EACH_CLASS, gap), scale)
    beside = text_rows(names, scale * (rows[0].shape[2] + gap))
    edge = picture.shape[1] - beside.shape[1]
    return torch.cat([_white(beside, picture, (0, 0, edge // 2, edge - edge // 2)), picture], dim=2)


def _white(text: Tensor, picture: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Grey text with white around it, and as many channels as the picture has."""
    return F.pad(text, padding, value=255).expand(len(picture), -1, -1)
