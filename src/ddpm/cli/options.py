"""Define options as pydantic models: a field is an option, its docstring the help."""

import inspect
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, create_model

from ddpm.diffusion.model import LoadedModel, load_model
from ddpm.params.card import ModelCard
from ddpm.params.sample import SamplerParams, fitted
from ddpm.pretrained import models
from exact_stages.console import UserError
from exact_stages.params import parse

HELP = {
    "sampler": "reverse process; a distilled model has its own",
    "steps": "network evaluations for each image; a distilled model has its own",
    "guidance": "guidance scale; 1: none; by default 1 to 1.5 by the training, or 1.1 for classifier_free",
    "guide": "the model from early in its training, or the model without the class",
    "guidance_interval": "range of log SNR with guidance, such as --guidance-interval=-4,2",
    "eta": "noise of all samplers but ddpm, from 0 (deterministic) to 1",
    "variance": "variance of the noise of ddpm",
    "clip": "clip the estimates of the clean image",
    "classes": "names of classes, such as 3,7",
}

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Options(BaseModel):
    """Base of a subcommand's options; their values arrive as text, and are converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def __init_subclass__(cls, **options: Any) -> None:
        """Dedent the docstring, which --help shows."""
        super().__init_subclass__(**options)
        cls.__doc__ = inspect.cleandoc(cls.__doc__ or "")

    def run(self) -> None:
        """Run the subcommand."""
        raise NotImplementedError


class ModelOptions(Options):
    """Options that name one model, by its file or by its name."""

    model: Path | None = None
    """model file, such as models/ddpm.safetensors"""
    pretrained: str | None = None
    """instead of --model: a model that comes with the package, such as mnist"""

    def load(self, device: torch.device | str = "cpu") -> LoadedModel:
        """Load the model.

        Raises:
            UserError: none or both are given; or the model is unknown, missing or damaged.
        """
        match self.model, self.pretrained:
            case Path() as file, None:
                return load_model(file, device)
            case None, str() as name:
                return models.load_pretrained(name, device)
        raise UserError(f"give either --model FILE or --pretrained NAME, one of: {', '.join(models.names())}")


C = TypeVar("C", bound=Options)


def with_sampler(command: type[C]) -> type[C]:
    """Add the sampler's params to a subcommand's options, with defaults."""
    fields: dict[str, Any] = {}
    for name, text in HELP.items():
        field = SamplerParams.model_fields[name]
        default = "all" if name == "classes" else field.default
        fields[name] = field.rebuild_annotation(), Field(default, description=text)
    return create_model(command.__name__, __base__=command, __doc__=command.__doc__, **fields)


def sampler_params(options: Options, card: ModelCard) -> SamplerParams:
    """Return the sampler's params that the options give, `fitted` to the model.

    Raises:
        UserError: values do not fit together or to the model, or are of a guide that a distilled model lacks.
    """
    values = {name: getattr(options, name) for name in HELP if name in options.model_fields_set}
    if card.timesteps and (unused := sorted(values.keys() & {"guide", "guidance_interval"})):
        raise UserError(f"{unused[0]}: a distilled model has no guide; leave it out")  # params.yaml always has both
    if values.get("classes") == ("all",):
        values["classes"] = "all"
    return fitted(parse(SamplerParams, values, "options"), card)
