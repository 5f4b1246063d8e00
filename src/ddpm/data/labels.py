"""Class labels: which there are, and how params name some of them."""

from typing import Annotated

from pydantic import BeforeValidator, Field

CLASSES = 10


def _all_or_some(value: object) -> object:
    if value == "all":
        return ()
    if isinstance(value, list | tuple) and value:
        return tuple(value)
    raise ValueError("must be all, or a list of labels such as [7]")


Label = Annotated[int, Field(ge=0, lt=CLASSES)]
Classes = Annotated[tuple[Label, ...], BeforeValidator(_all_or_some)]  # as params give them; none stands for all
