"""`ddpm export`: write a model file as ONNX, for other programs and languages."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ddpm.cli.options import ModelOptions
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.model import LoadedModel
from ddpm.diffusion.randomness import CPU
from ddpm.diffusion.unet import UNet
from ddpm.images.card import Shape
from ddpm.processes.device import Runtime
from exact_stages.console import UserError
from exact_stages.files import write_whole

if TYPE_CHECKING:
    import onnx

OPSET = 20
BATCH = 2  # of the example input: torch takes a 1 for a constant


class Export(ModelOptions):
    """Write a model as ONNX: x_t (B, C, H, W) float32, t (B,) and label (B,) int64 -> noise.

    A network that is not class-conditional has no label. The metadata have alphas_cumprod and the model card, a JSON
    value for each of its fields (data: classes and image shape).
    """

    out: Path
    """file to write, ending in .onnx; an existing one is replaced"""
    guide: Literal["autoguidance"] | None = None
    """write the guide from early in the training instead"""

    def run(self) -> None:
        """Write the file, completely or not at all.

        Raises:
            UserError: see `to_onnx`; or the file name does not end in .onnx.
        """
        if self.out.suffix != ".onnx":
            raise UserError(f"--out {self.out}: name a file that ends in .onnx")
        data = to_onnx(self.load(), self.guide)
        write_whole(self.out, data)
        print(f"{self.out}: {len(data):,} bytes")


def to_onnx(loaded: LoadedModel, guide: str | None = None) -> bytes:
    """Convert the network to an ONNX file: (x_t, t, label) -> noise, any batch size; equal networks give equal bytes.

    Shapes: x_t (B, C, H, W) float32, t (B,) and label (B,) int64, noise like x_t. A network that is not
    class-conditional has no input `label`. The output is the noise, whatever the network predicts. The metadata have
    the model card, a JSON value for each of its fields, and `alphas_cumprod` at t = 0..T-1.

    Args:
        guide: "autoguidance" for the guide from early in the training.

    Raises:
        UserError: the model has no such guide, or packages of the extra are missing.
    """
    network = loaded.guide if guide == "autoguidance" else loaded.network
    if network is None:
        raise UserError(f"--guide {guide}: this model has no such guide; leave it out")
    denoiser = loaded.denoiser(Runtime(CPU, torch.float32), network)
    proto = _traced(PredictNoise(network, denoiser), loaded.card.data.shape)
    _strip(proto)
    card = loaded.card.model_dump(mode="json")
    facts = {**card, "alphas_cumprod": loaded.schedule.alphas_cumprod.tolist(), "network": guide or "model"}
    for key, value in sorted(facts.items()):
        proto.metadata_props.add(key=key, value=json.dumps(value))
    return proto.SerializeToString(deterministic=True)


class PredictNoise(nn.Module):
    """A module that returns only the noise of a denoiser."""

    def __init__(self, network: UNet, denoiser: Denoiser) -> None:
        super().__init__()
        self.network = network
        self.denoiser = denoiser

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Shapes: x_t (B, C, H, W), t and label (B,); the noise is like x_t."""
        return self.denoiser(x_t, t, label).noise


def _traced(module: PredictNoise, shape: Shape) -> "onnx.ModelProto":
    """Export the network by torch."""
    try:
        import onnxscript
    except ImportError:
        raise UserError("ONNX: needs onnx and onnxscript; `pip install onnx onnxscript` installs them") from None
    del onnxscript  # torch needs it, and it needs onnx
    inputs = {"x_t": torch.zeros(BATCH, *shape), "t": torch.zeros(BATCH, dtype=torch.int64)}
    if module.network.label:
        inputs["label"] = torch.zeros(BATCH, dtype=torch.int64)
    with warnings.catch_warnings(action="ignore"):  # torch warns about itself
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[*inputs],
            output_names=["noise"],
            dynamic_shapes=tuple({0: "batch"} for _ in inputs),
        )
    assert program
    return program.model_proto


def _strip(proto: "onnx.ModelProto") -> None:
    """Remove what torch notes about the export: paths of source files, and half a megabyte of text."""
    graph = proto.graph
    holders: list[Any] = [proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
    for holder in holders:
        del holder.metadata_props[:]
        holder.doc_string = ""
    del graph.value_info[:]
