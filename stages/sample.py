"""Draw one set of images, `gallery` or `population`, from the trained model."""

import sys
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ddpm.data.images import to_uint8
from ddpm.diffusion.samplers import SamplerParams
from ddpm.networks.checkpoint import LoadedModel, load_model
from ddpm.networks.sampling import batches, check_sampler, draw_batch, draw_labels, sample_batch, wanted_classes
from ddpm.runtime.arrays import save_arrays
from ddpm.runtime.console import UserError, progress
from ddpm.runtime.device import Runtime, start
from ddpm.runtime.params import Sections
from ddpm.runtime.resume import State, stopping
from ddpm.runtime.stage import Stage, run_stage

SAMPLES = Path("data/samples")
SETS = ("gallery", "population")
MOST_IMAGES, MOST_KEPT, MOST_FRAMES = 10_000_000, 1000, 1000


class Source(Sections):
    """Which model draws."""

    model: Annotated[str, Field(min_length=1)]


class SampleParams(SamplerParams):
    """How many images, with which noise, and how often the way to them is kept."""

    count: Annotated[int, Field(ge=2, le=MOST_IMAGES)]
    keep_every: Annotated[int, Field(ge=0, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]

    def excess(self, steps: int) -> str:
        """What is wrong with the frames kept of so many steps: they are held in memory, and drawn as an animation."""
        frames = steps // self.keep_every if self.keep_every else 0
        if frames and self.count > MOST_KEPT:
            return f"count: {self.count} must be at most {MOST_KEPT} where frames are kept; or set keep_every to 0"
        if frames > MOST_FRAMES:
            return (
                f"keep_every: {self.keep_every} keeps {frames} frames, and at most {MOST_FRAMES} can be kept; raise it"
            )
        return ""


def main(stage: Stage) -> None:
    """Draw one of the sets; go on where a run with the very same inputs was cut off."""
    name = stage.item
    params = stage.params(SampleParams, f"sample.{name}")
    runtime = start()
    loaded = load_model(stage.input(Path(stage.params(Source, "sample").model)), runtime.device)
    state = State(stage.name, stage.fingerprint(runtime.describe()))
    arrays, kept_t = draw(name, loaded, params, runtime, state)
    output = stage.output(SAMPLES / f"{name}.safetensors")
    x_t, pred_x_start = arrays["frames"]
    samples = {"images": arrays["images"], "x_t": x_t, "pred_x_start": pred_x_start}
    if loaded.card.model.class_conditional:
        samples["labels"] = draw_labels(loaded.card, params, params.seed, range(params.count))
    facts = {"data": loaded.card.data.model_dump(mode="json"), "classes": wanted_classes(loaded.card, params)}
    save_arrays(output, samples, {**facts, "kept_t": kept_t})
    state.finish(arrays, {"kept_t": kept_t}, [output])


def draw(
    name: str, loaded: LoadedModel, params: SampleParams, runtime: Runtime, state: State
) -> tuple[dict[str, Tensor], list[int]]:
    """Images (count, C, H, W), the frames kept of their way (2, frames, count, C, H, W), and the frames' t.

    The two kinds of frames are x_t and pred_x_start; all is uint8. Whole batches are saved on the way.
    """
    try:
        steps = check_sampler(loaded, params)
    except UserError as error:
        raise UserError(f"sample.{name}.{error}") from None
    if excess := params.excess(steps):
        raise UserError(f"sample.{name}.{excess}")
    shape = loaded.card.data.shape
    if params.spacing is None and not loaded.card.timesteps:
        spacing = params.for_images(shape[0]).spacing
        print(f"sample.{name}.spacing: {spacing}, as the images ask for", file=sys.stderr)
    arrays = {"images": torch.empty(0, *shape, dtype=torch.uint8)}
    kept_t: list[int] = []
    if saved := state.load():
        arrays, kept_t = saved.arrays, saved.facts["kept_t"]
        print(f"resuming after {len(arrays['images'])} of {params.count} images", file=sys.stderr)
    first = len(arrays["images"])
    bar = progress(
        desc=f"sample {name}", total=params.count * steps, initial=first * steps, unit="eval", unit_scale=True
    )
    with stopping() as stop, bar:
        for indices in batches(first, params.count - first, sample_batch(loaded, runtime)):
            kept_t = []
            frames = [torch.empty(2, 0, len(indices), *shape, dtype=torch.uint8)]
            for done, step in enumerate(draw_batch(loaded, params, params.seed, indices, runtime), start=1):
                if params.keep_every and (steps - done) % params.keep_every == 0:
                    kept_t.append(step.t)
                    frames.append(to_uint8(torch.stack([step.x_prev, step.pred_x_start])).cpu().unsqueeze(1))
                bar.update(len(indices))
                if stop.requested:
                    state.save(arrays, {"kept_t": kept_t})
                    raise UserError(
                        f"interrupted after {indices.start} images; the next `dvc repro` goes on from there"
                    )
            batch = {"images": to_uint8(step.x_prev).cpu(), "frames": torch.cat(frames, dim=1)}
            arrays = join(arrays, batch) if len(arrays["images"]) else batch
            if state.due():
                state.save(arrays, {"kept_t": kept_t})
    return arrays, kept_t


def join(before: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The images and frames of both."""
    return {
        "images": torch.cat([before["images"], batch["images"]]),
        "frames": torch.cat([before["frames"], batch["frames"]], dim=2),
    }


if __name__ == "__main__":
    run_stage("sample", main, SETS)
