"""What can guide a sampler, see `guidance.guided`; apart from it, so that an edit there does not retrain."""

from typing import Literal

Guide = Literal["early", "unlabelled"]  # the model as it was early in its training, or as it is when not told the class
