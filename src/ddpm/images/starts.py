"""Choose what a training begins with: clip art for few images in colour, or random weights.

The stage `preprocess` writes the choice to a file, so that only trainings that begin with clip art depend on it. A
param cannot be null there, since DVC wants a file.
"""

from ddpm.images.card import Shape

CHOSEN, NONE = "data/processed/start", b"none\n"  # the file; what it holds in place of a model
SCRATCH, CLIP_ART = "data/scratch", "data/clip_art.safetensors"  # a small text that stands for no model; a model
FEW = 1000  # training images: so many gain nothing by clip art (provisional, until studies/small_sets has rows)


def start_for(count: int, shape: Shape) -> tuple[str, str]:
    """Return what `count` training images of a shape (C, H, W) begin with, and why."""
    if count >= FEW:
        return SCRATCH, f"{count:,} images need no other model"
    if shape[0] == 1:
        return SCRATCH, "the images are grey, and no model for few of them is known"
    return CLIP_ART, f"{count:,} images in colour are fewer than {FEW:,}"
