"""The options of the command lines that draw from a model: how its images are to be drawn."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import get_args

from ddpm.networks.checkpoint import ModelCard
from ddpm.pipeline.params import parse
from ddpm.sampling.samplers import SamplerParams

MOST_STEPS = 100_000
LAST_SEED = 2**63 - 1
WALK = {"sampler": "dpmpp_2m", "steps": 20}  # where nothing of it is said, and the file has no walk of its own
OWN_WALK = {"sampler": "ddpm", "steps": None}  # of a distilled file
GUIDED = {"guidance": 1.3, "guide": "early", "guidance_interval": (-4.0, 2.0)}  # likewise, where it has that guide


def sampler_params(args: argparse.Namespace) -> SamplerParams:
    """What the options say, and where they say nothing the defaults.

    Raises:
        UserError: a value is out of its range.
    """
    given = {"classes": "all"} | WALK | GUIDED | vars(args)
    values = {name: given[name] for name in SamplerParams.model_fields}
    if values["classes"] == ["all"]:
        values["classes"] = "all"
    return parse(SamplerParams, values, "command line")


def fitting(params: SamplerParams, args: argparse.Namespace, card: ModelCard) -> SamplerParams:
    """With what this model has in place of the defaults."""
    if not vars(args).keys() & GUIDED.keys() and params.guide not in card.guides:
        params = params.model_copy(update={"guidance": 1.0})
    if card.timesteps:
        own = {name: value for name, value in OWN_WALK.items() if name not in vars(args)}
        params = params.model_copy(update=own)
    return params


def add_sampler_options(parser: argparse.ArgumentParser, classes: str) -> None:
    """All but where the images come from and go to; `classes` says in the help what the names of classes are for."""
    option = parser.add_argument
    left = partial(option, default=argparse.SUPPRESS)
    left(
        "--sampler", choices=_choices("sampler"), help="reverse process (default: dpmpp_2m, or a distilled file's own)"
    )
    left(
        "--steps",
        type=at_least(1, MOST_STEPS),
        metavar="N",
        help="evaluations of the network for each image (default: 20, or a distilled file's own)",
    )
    spacings = get_args(get_args(SamplerParams.model_fields["spacing"].annotation)[0])
    option(
        "--spacing",
        choices=spacings,
        default=None,
        help="which timesteps are taken: trailing, log_snr for colour; power suits few",
    )
    option("--eta", type=float, default=1.0, metavar="X", help="noise of all but ddpm, 0 (deterministic) to 1")
    left(
        "--guidance",
        type=float,
        metavar="X",
        help="how much farther than the model away from its guide; 1 is the model alone "
        "(default: 1.3; 1 where it has no early guide, and none of these three is set)",
    )
    left(
        "--guide",
        choices=_choices("guide"),
        help="the model as it was early in its training, or as it is, but not told the class (default: early)",
    )
    left(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar=("FROM", "TO"),
        help="the log signal-to-noise ratios at which it acts (default: -4 2)",
    )
    option("--variance", choices=_choices("variance"), default="posterior", help="variance of the noise of ddpm")
    left("--classes", nargs="+", metavar="NAME", help=classes)
    option("--clip", action=argparse.BooleanOptionalAction, default=True, help="clip the estimates of the clean image")


def _choices(field: str) -> tuple[str, ...]:
    """What the sampler's params allow."""
    return get_args(SamplerParams.model_fields[field].annotation)


def at_least(least: int, most: int = 10**9) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on, but for what is more than `most`."""

    def number(text: str) -> int:
        # The length comes first: of thousands of digits Python makes no number.
        if len(text) > 100 or not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text[:100]!r} is not a whole number from {least} to {most}")
        return int(text)

    return number
