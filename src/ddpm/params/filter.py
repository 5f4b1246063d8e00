"""The section `filter`."""

from typing import Annotated

from pydantic import Field

from exact_stages.params import Section


class FilterParams(Section):
    """The least probability that classifier a must give the class of an image; None: see `filtering.most_probable`."""

    least_probability: Annotated[float, Field(ge=0, lt=1)] | None
