"""The pictures of a set of samples, encoded."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.data.images import to_uint8
from ddpm.scoring.copying import nearest_neighbours
from ddpm.scoring.figures import class_histogram, image_gif, image_png, image_table, tile, to_png
from ddpm.scoring.scores import class_shares

GRID_ROWS, GRID_COLUMNS, STRIP_FRAMES, PAIRS, EACH_CLASS = 6, 7, 10, 10, 10


def gallery_pictures(images: Tensor, x_t: Tensor, pred_x_start: Tensor, kept_t: list[int]) -> dict[str, bytes]:
    """By file name: a grid of samples, one's strip from noise to image, the reverse process as an animation.

    Shapes: images uint8 (N, 1, 28, 28), x_t and pred_x_start uint8 (frames, N, 1, 28, 28).
    """
    images, x_t, pred_x_start = images.squeeze(1), x_t.squeeze(2), pred_x_start.squeeze(2)
    last = slice(-STRIP_FRAMES, None)
    strip = torch.stack([x_t[last, 0], pred_x_start[last, 0]])
    titles = [f"t = {t}" for t in kept_t[last]]
    frames = [
        torch.cat([tile(noisy, 8), tile(clean, 8)], dim=1) for noisy, clean in zip(x_t, pred_x_start, strict=True)
    ]
    return {
        "samples.png": image_png(tile(images[: GRID_ROWS * GRID_COLUMNS], GRID_COLUMNS), scale=4),
        "denoising.png": to_png(image_table(strip, titles, "One sample: x_t above, the estimate of x_0 below")),
        "reverse.gif": image_gif(frames, scale=1),
    }


def neighbours_picture(samples: Tensor, train: Tensor) -> bytes:
    """The first samples above, the training image nearest to each below; both (N, 1, 28, 28) in [-1, 1]."""
    shown = samples[:PAIRS]
    nearest = nearest_neighbours(shown, train)
    table = to_uint8(torch.stack([shown, train[nearest.nearest]])).squeeze(2)
    titles = [f"{distance:.3f}" for distance in nearest.distance.tolist()]
    title = "Samples above, their nearest training images below (root-mean-square difference)"
    return to_png(image_table(table, titles, title))


def classes_picture(samples: Tensor, train: Tensor) -> bytes:
    """How often each class is recognised among the samples and among the training images, labels (N,)."""
    shares = {"samples": class_shares(samples), "training images": class_shares(train)}
    return to_png(class_histogram(shares, "Classes as classifier b sees them"))


def by_class_picture(images: Tensor, labels: Tensor) -> bytes:
    """The first samples of each class, a row for each; uint8 (N, 1, 28, 28) and labels (N,)."""
    rows = []
    for label in labels.unique():
        row = images[labels == label][:EACH_CLASS]
        rows.append(F.pad(row, (0, 0) * 3 + (0, EACH_CLASS - len(row))))
    return image_png(tile(torch.cat(rows).squeeze(1), EACH_CLASS), scale=4)
