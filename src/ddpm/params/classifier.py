"""The section `classifier`."""

from typing import Annotated

from pydantic import Field

from exact_stages.params import Section


class ClassifierParams(Section):
    """The length of the training of the classifiers, in images."""

    images_seen: Annotated[int, Field(ge=1, le=10**9)]
