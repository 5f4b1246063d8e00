"""The section `classification_accuracy_score`."""

from typing import Annotated

from pydantic import Field

from exact_stages.params import Section


class ClassificationAccuracyScoreParams(Section):
    """The largest number of training images."""

    count: Annotated[int, Field(ge=2)]
