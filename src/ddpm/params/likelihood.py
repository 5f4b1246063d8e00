"""The section `likelihood`."""

from typing import Annotated

from pydantic import Field

from exact_stages.params import Section


class LikelihoodParams(Section):
    """The number of images."""

    images: Annotated[int, Field(ge=2, le=10**9)]
