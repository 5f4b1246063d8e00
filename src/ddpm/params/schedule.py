"""The section `schedule`."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from exact_stages.params import Section

LEAST_SIGNAL = 1e-10  # alphas_cumprod at the last timestep; 4e-5 in Ho et al. 2020
# Beta at the first timestep; 1e-4 in Ho et al. 2020. Samplers divide by the noise, sqrt(1 - abar), and 1 - beta has
# sixteen digits: a smaller beta would lose them.
LEAST_NOISE = 1e-10


class ScheduleParams(Section):
    """T and the range of the linear betas. The paper's T is 1000, its range 1e-4 to 0.02 (section 4)."""

    timesteps: Annotated[int, Field(ge=1, le=100_000)]
    beta_start: Annotated[float, Field(ge=LEAST_NOISE, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.beta_end < self.beta_start:
            raise ValueError("beta_end must be at least beta_start")
        rise = (self.beta_end - self.beta_start) / max(1, self.timesteps - 1)
        # With a weaker signal, float32 could not tell the error of v from rounding.
        if math.prod(1 - self.beta_start - t * rise for t in range(self.timesteps)) < LEAST_SIGNAL:
            raise ValueError(
                f"timesteps and beta_end leave less than {LEAST_SIGNAL:g} of the signal; lower one of them"
            )
        return self
