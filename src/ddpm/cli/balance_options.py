"""The options of `python -m ddpm.cli.balance`."""

import argparse
from functools import partial
from pathlib import Path

from ddpm.balancing.drawing import SPAN
from ddpm.balancing.filling import HOPELESS
from ddpm.balancing.folder import MANIFEST, SETTINGS
from ddpm.cli.drawing_options import LAST_SEED, add_sampler_options, at_least
from ddpm.parallel.launch import HELP

MOST_TRIES = 1000
LEAST_HELP = "what the filter must give the class at least; it must find no class more probable, in any case"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ddpm.cli.balance",
        description="Make of an imbalanced set a balanced folder: train/<class> has the real training images and, up "
        "to a target for each class, drawn ones that a classifier takes for the class and that are no copies of "
        "training images; test/<class> has the test images, and nothing drawn. All are png of one size and format. "
        f"{MANIFEST} says of each file what it is, and of a drawn one its seed and index: python -m ddpm.cli.generate "
        f"--classes CLASS --seed SEED --first INDEX --count 1 draws it again, with the options of {SETTINGS}.",
        epilog=f"A class that cannot be filled is given up after {HOPELESS} candidates, or --most-tries for each image "
        "wanted, if fewer of them than one in --most-tries can be kept; it has what there is by then, perhaps nothing, "
        "a warning says so, and the exit code is 0 all the same. After Ctrl-C, or any other end, the same command goes "
        f"on in the same working folder, and gives the same files; FOLDER is there when it is whole. {HELP}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    path = partial(option, type=Path, required=True, metavar="FILE", default=argparse.SUPPRESS)
    path("--data", help="training images, such as data/processed/train.safetensors")
    path("--model", help="class-conditional model, trained on them, such as models/ddpm.safetensors")
    path("--classifier", help="filter, trained on them alone, such as models/classifier-a.safetensors")
    path("--out", metavar="FOLDER", help="new or empty folder, such as data/balanced; dvc add tracks it")
    left = partial(option, default=argparse.SUPPRESS)
    left("--test", type=Path, metavar="FILE", help="test images (default: test.safetensors beside --data)")
    most = "as many as the most frequent class has"
    left("--target", type=at_least(1, SPAN), metavar="N", help=f"images that a class is filled up to (default: {most})")
    option("--least-probability", type=_share, default=0.0, metavar="X", help=LEAST_HELP)
    tries = "candidates for each image kept, of which more are not drawn"
    option("--most-tries", type=at_least(1, MOST_TRIES), default=20, metavar="N", help=tries)
    option("--seed", type=at_least(0, LAST_SEED), default=0, metavar="N", help="seed of the noise and of the order")
    add_sampler_options(parser, "names of the classes that are filled; the others stay as they are (default: all)")
    return parser.parse_args()


def _share(text: str) -> float:
    """A number from 0 to below 1."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is not a number from 0 to below 1")
    return found
