"""What the stages of the study of rare classes hand on, and what they measure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from ddpm.compute.device import Runtime
from ddpm.images.splits import Processed, Split, data_card
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Sections
from ddpm.study.arms import Arm, Drawn
from ddpm.study.learning import LearnParams, confusion, learn


def _real_alone(name: str) -> str:
    if Arm.parse(name).drawn:
        raise ValueError("learns from drawn images, of which there are none here; name an arm without drawn")
    return name


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len({*values}) < len(values):
        raise ValueError("one stands there twice")
    return values


Seed = Annotated[int, Field(ge=0, lt=2**63)]
ArmName = Annotated[str, AfterValidator(lambda text: str(Arm.parse(text)))]
RealArmName = Annotated[ArmName, AfterValidator(_real_alone)]


class ArmsParams(Sections):
    """Which arms a stage compares on a cut, and the seeds of their classifiers."""

    arms: Annotated[tuple[ArmName, ...], Field(min_length=1), AfterValidator(_each_once)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_each_once)]


def save_drawn(path: Path, drawn: Drawn, numbers: Tensor, processed: Processed) -> None:
    """Write drawn images, with the numbers by which they are drawn again (N,)."""
    arrays = {"images": drawn.images, "labels": drawn.labels, "taken": drawn.taken, "numbers": numbers}
    save_arrays(path, arrays, {"data": processed.card.model_dump(mode="json")})


def load_drawn(path: Path) -> Drawn:
    """What `save_drawn` wrote.

    Raises:
        UserError: the file is missing, damaged, or no such set.
    """
    arrays, metadata = load_arrays(path, {"images", "labels", "taken", "numbers"})
    card, count = data_card(path, metadata), len(arrays["labels"])
    labels = arrays["labels"]
    whole = arrays["images"].dtype == torch.uint8 and arrays["images"].shape == (count, *card.shape)
    whole = whole and labels.dtype == torch.int64 and arrays["taken"].dtype == torch.bool
    whole = whole and arrays["taken"].shape == labels.shape == (count,)
    if not (whole and bool(((labels >= 0) & (labels < len(card.classes))).all())):
        raise UserError(f"{path}: its arrays are not those of drawn images; `dvc repro` makes it anew")
    return Drawn(arrays["images"], labels, arrays["taken"])


def compare_arms(
    arms: Sequence[str],
    seeds: Sequence[int],
    train: Processed,
    drawn: Drawn,
    rare: Sequence[int],
    test: Split,
    params: LearnParams,
    runtime: Runtime,
) -> dict[str, dict[str, Any]]:
    """By arm, what its classifiers come to, one for each seed.

    confusions: of the images to test on, see `confusion`. traces: the share of drawn images of frequent classes that
    it takes for a rare one: a classifier that has met drawn images in the rare classes alone may take the traces of the
    generator for the mark of a rare class. These are all that were drawn, for a filter would favour those like itself.
    """
    frequent = ~torch.isin(drawn.labels, torch.tensor([*rare]))
    shown = drawn.images[frequent], drawn.labels[frequent]
    by_arm: dict[str, dict[str, Any]] = {}
    for arm in arms:
        found: dict[str, list[Any]] = {"confusions": [], "traces": []}
        for seed in seeds:
            name = f"{arm}, seed {seed}"
            model = learn(name, train.split, drawn, rare, Arm.parse(arm), train.card, params, seed, runtime)
            found["confusions"].append(confusion(model, *test, runtime.device).tolist())
            of_drawn = confusion(model, *shown, runtime.device)
            share = float(of_drawn[:, [*rare]].sum() / of_drawn.sum().clamp(min=1))
            found["traces"].append(round(share, 5))
        by_arm[arm] = found
    return by_arm


def named(found: Mapping[int, Any], processed: Processed) -> dict[str, Any]:
    """By the names of classes in place of labels."""
    return {processed.card.classes[label]: value for label, value in found.items()}
