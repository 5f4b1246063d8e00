"""Write a page about the scores of a set of samples, which needs no other file."""

import base64
import html
from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm.cli.summary import Line
from ddpm.pictures.figures import image_png, tile
from ddpm.pictures.grids import STILL, enlargement, spacing
from ddpm.scores.copying import nearest_neighbours
from ddpm.scores.evaluation import Evaluation

COLUMNS = 10
STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
color: #222; background: #fff } table { border-collapse: collapse } th, td { padding: .2rem .8rem; text-align: right;
border-bottom: 1px solid #ccc } :is(th, td):is(:first-child, :last-child) { text-align: left }
tbody th { white-space: nowrap }
img { max-width: 100% }"""
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Scores</title>
<style>{style}</style>
<h1>Scores</h1>
<table>
<tr>{head}
{rows}
</table>
<p>The real images of this table are training images with the classes of the samples, which are no part of what both are
compared with. Of conditional accuracy, near copies and the mix of classes, they were held out; of the C2ST accuracy,
chance is shown. The error is the standard error of the difference: a difference of less than two errors may be chance.
{count:,} images of each set are compared.</p>
{figures}
</html>
"""


def score_page(lines: Sequence[Line], found: Evaluation, samples: Tensor, train: Tensor) -> bytes:
    """Return the page: a table of the lines, and samples next to training images, both uint8 (N, C, H, W)."""
    head = "".join(f'<th scope="col">{name}' for name in ("score", "samples", "real images", "error", "what it says"))
    cells = [[html.escape(each) for each in line] for line in lines]
    rows = "\n".join(f'<tr><th scope="row">{"<td>".join(row)}' for row in cells)
    pictures = {
        "Samples, and below each the training image nearest to it": _pairs(samples, train),
        "The samples nearest to a training image, and that image. Are they copies?": _pairs(found.copied, train),
        "The samples of which the network is most certain that they are not real. What do they share?": found.detected,
    }
    figures = "\n".join(_figure(title, images) for title, images in pictures.items() if len(images))
    return PAGE.format(style=STYLE, head=head, rows=rows, count=found.scores["count"], figures=figures).encode()


def _pairs(samples: Tensor, train: Tensor) -> Tensor:
    """Arrange rows of samples above rows of their nearest training images."""
    shown = samples[: 2 * COLUMNS]
    nearest = train[nearest_neighbours(shown, train).nearest]
    return torch.cat([torch.cat(pair) for pair in zip(shown.split(COLUMNS), nearest.split(COLUMNS), strict=True)])


def _figure(title: str, images: Tensor) -> str:
    picture = image_png(tile(images, COLUMNS, spacing(images)), enlargement(images, STILL))
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return f'<h2>{title}</h2>\n<img src="{source}" alt="{title}">'
