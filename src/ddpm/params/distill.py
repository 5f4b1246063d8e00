"""The section `distill`."""

from typing import Annotated

from pydantic import Field

from exact_stages.params import Section

MOST_EVALUATIONS = 64


class DistillParams(Section):
    """The numbers of evaluations, and the length of the distillation; params.yaml explains each choice."""

    steps: tuple[Annotated[int, Field(ge=1, le=MOST_EVALUATIONS)], ...]
    images_seen: Annotated[int, Field(ge=1, le=10**12)]
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
