"""Draw one set of images, `gallery` or `population`, from the trained model."""

import sys
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import CPU
from ddpm.images.pixels import to_uint8
from ddpm.networks.checkpoint import LoadedModel, load_model
from ddpm.parallel.group import Group, join, place
from ddpm.parallel.launch import shared_out
from ddpm.parallel.resume import State, stopping
from ddpm.pipeline.arrays import save_arrays
from ddpm.pipeline.console import UserError, progress, run
from ddpm.pipeline.params import Sections
from ddpm.pipeline.stage import Stage, check_command
from ddpm.sampling.drawing import (
    batches,
    check_sampler,
    draw_batch,
    draw_labels,
    fewest_batches,
    sample_batch,
    wanted_classes,
)
from ddpm.sampling.samplers import SamplerParams

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


def main() -> None:
    """Draw one of the sets in this process, or in as many as there are GPUs or the environment asks for."""
    check_command("sample", SETS)
    name, group = sys.argv[1], place()
    stage = Stage("sample", name, alone=group.rank == 0)
    params = stage.params(SampleParams, f"sample.{name}")
    model = Path(stage.params(Source, "sample").model)
    runtime = start()

    def fewest() -> int:
        loaded = load_model(stage.input(model), CPU)
        steps_of(name, loaded, params)  # what is wrong with them is said once
        return fewest_batches(loaded.card, params.count, runtime)

    if shared_out(runtime.device, fewest, "stages.sample", [name]):
        stage.output(file_of(name))
        stage.finish()  # it takes longer to end than the process that wrote it
        return
    with stage:
        work(stage, model, params, runtime, group)


def work(stage: Stage, model: Path, params: SampleParams, runtime: Runtime, group: Group) -> None:
    """Draw the images; go on where a run with the very same inputs was cut off.

    Of the processes that draw together only the first reads and writes states and results.
    """
    loaded = load_model(stage.input(model), runtime.device)
    state = State(stage.name, stage.fingerprint(runtime.describe())) if group.rank == 0 else None
    join(group, CPU)
    group.agree({**stage.facts(), "precision": str(runtime.precision)})
    arrays, kept_t = draw(stage.item, loaded, params, runtime, state, group)
    if not state:
        return
    output = stage.output(file_of(stage.item))
    x_t, pred_x_start = arrays["frames"]
    samples = {"images": arrays["images"], "x_t": x_t, "pred_x_start": pred_x_start}
    if loaded.card.model.class_conditional:
        samples["labels"] = draw_labels(loaded.card, params, params.seed, range(params.count))
    facts = {"data": loaded.card.data.model_dump(mode="json"), "classes": wanted_classes(loaded.card, params)}
    save_arrays(output, samples, {**facts, "kept_t": kept_t})
    state.finish(arrays, {"kept_t": kept_t}, [output])


def file_of(name: str) -> Path:
    """What is written of a set."""
    return SAMPLES / f"{name}.safetensors"


def steps_of(name: str, loaded: LoadedModel, params: SampleParams) -> int:
    """Number of steps that params mean for this model.

    Raises:
        UserError: they do not fit it; or there would be too many frames.
    """
    try:
        steps = check_sampler(loaded, params)
    except UserError as error:
        raise UserError(f"sample.{name}.{error}") from None
    if excess := params.excess(steps):
        raise UserError(f"sample.{name}.{excess}")
    return steps


def draw(
    name: str, loaded: LoadedModel, params: SampleParams, runtime: Runtime, state: State | None, group: Group
) -> tuple[dict[str, Tensor], list[int]]:
    """Images (count, C, H, W), the frames kept of their way (2, frames, count, C, H, W), and the frames' t.

    The two kinds of frames are x_t and pred_x_start; all is uint8. Whole batches are saved on the way. Only the process
    that has the state has all of them.
    """
    steps, shape = steps_of(name, loaded, params), loaded.card.data.shape
    arrays = {"images": torch.empty(0, *shape, dtype=torch.uint8)}
    kept_t: list[int] = []
    if state and params.spacing is None and not loaded.card.timesteps:
        spacing = params.for_images(shape[0]).spacing
        print(f"sample.{name}.spacing: {spacing}, as the images ask for", file=sys.stderr)
    if state and (saved := state.load()):
        arrays, kept_t = saved.arrays, saved.facts["kept_t"]
        print(f"resuming after {len(arrays['images'])} of {params.count} images", file=sys.stderr)
    first, size = group.from_first(len(arrays["images"])), min(group.gather(sample_batch(loaded, runtime)))
    bar = progress(
        desc=f"sample {name}",
        total=params.count * steps,
        initial=first * steps,
        unit="eval",
        unit_scale=True,
        disable=not state,
    )
    with stopping() as stop, bar:

        def drawn(indices: range) -> dict[str, Tensor]:
            kept_t.clear()
            frames = [torch.empty(2, 0, len(indices), *shape, dtype=torch.uint8)]
            for done, step in enumerate(draw_batch(loaded, params, params.seed, indices, runtime), start=1):
                if params.keep_every and (steps - done) % params.keep_every == 0:
                    kept_t.append(step.t)
                    frames.append(to_uint8(torch.stack([step.x_prev, step.pred_x_start])).cpu().unsqueeze(1))
                bar.update(len(together))
                if stop.requested:
                    raise UserError(
                        f"interrupted after {together.start} images; the next `dvc repro` goes on from there"
                    )
            return {"images": to_uint8(step.x_prev).cpu(), "frames": torch.cat(frames, dim=1)}

        try:
            for together in batches(first, params.count - first, size * group.size):
                for batch in group.each(drawn, [*batches(together.start, len(together), size)]):
                    arrays = joined(arrays, batch) if len(arrays["images"]) else batch
                if state and state.due():
                    state.save(arrays, {"kept_t": kept_t})
        except UserError:
            if state:
                state.save(arrays, {"kept_t": kept_t})
            raise
    return arrays, kept_t


def joined(before: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The images and frames of both."""
    return {
        "images": torch.cat([before["images"], batch["images"]]),
        "frames": torch.cat([before["frames"], batch["frames"]], dim=2),
    }


if __name__ == "__main__":
    run(main)
