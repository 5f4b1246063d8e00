"""Train the denoising diffusion model; its curves are rewritten while it trains."""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.arrays import load_arrays
from ddpm.checkpoint import save_model
from ddpm.console import UserError, progress, run
from ddpm.device import Runtime, start
from ddpm.files import write_json, write_whole
from ddpm.params import Sections, load_params
from ddpm.resume import State, fingerprint, stopping
from ddpm.schedule import NoiseSchedule, ScheduleParams
from ddpm.timesteps import TIMESTEP_BUCKETS
from ddpm.training import EpochEnd, Logged, Training, TrainParams
from ddpm.unet import UNet, UNetParams

TRAIN = Path("data/processed/train.safetensors")
MODEL = Path("models/ddpm.safetensors")
METRICS = Path("metrics/train")
SECONDS_BETWEEN_WRITES = 5


class Params(Sections):
    """What this stage reads."""

    schedule: ScheduleParams
    model: UNetParams
    train: TrainParams


def main() -> None:
    """Train to the end, then write model and summary; go on where a run with the very same inputs was cut off."""
    params = load_params(Params)
    runtime = start()
    environment = runtime.describe()
    state = State("train", fingerprint([TRAIN], params.model_dump(mode="json"), environment))
    images, validation, classes = split_images(params.train)
    training = new_training(params, images, validation, runtime)
    curves = Curves(params.schedule.timesteps)
    if saved := state.load():
        training.load_state(saved.arrays)
        curves.load(saved.facts)
        print(f"resuming after step {training.step} of {training.total_steps}", file=sys.stderr)
    train(training, curves, state)
    curves.write()
    save_model(MODEL, training.model, NoiseSchedule(params.schedule), classes, environment=environment)
    parameters = sum(weight.numel() for weight in training.model.parameters())
    total = training.total_steps * params.train.batch_size
    write_json(METRICS / "summary.json", {**curves.last, "images_seen": total, "parameters": parameters})
    write_json(METRICS / "environment.json", environment)
    state.finish(training.state(), curves.facts(), [MODEL])


def train(training: Training, curves: "Curves", state: State) -> None:
    """Run the loop; the state is saved every so often, and when someone asks the process to end."""
    size = training.params.batch_size
    bar = progress(
        desc="train", total=training.total_steps * size, initial=training.step * size, unit="img", unit_scale=True
    )
    with stopping() as stop, bar:
        for event in training.run():
            if event:
                curves.add(event)
            if isinstance(event, Logged):
                if not math.isfinite(event.loss):
                    lr = training.params.lr
                    raise UserError(f"train.lr: the loss is {event.loss} at step {event.step}; try less than {lr}")
                bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
                bar.update(event.step * size - bar.n)
            if stop.requested or state.due():
                state.save(training.state(), curves.facts())
            if stop.requested:
                raise UserError(f"interrupted after step {training.step}; the next `dvc repro` goes on from there")


def split_images(params: TrainParams) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Training and validation images of the classes to train on, and those classes; the last images are held out.

    Raises:
        UserError: a class has no images, or too few images are left for a batch.
    """
    arrays, _ = load_arrays(TRAIN, {"images", "labels"})
    images, labels = arrays["images"], arrays["labels"]
    present = labels.unique().tolist()
    classes = sorted(set(params.classes))
    if absent := sorted(set(classes) - set(present)):
        raise UserError(f"train.classes: no image has the label {absent[0]}; choose from {present}")
    if classes != present:  # else the images stay mapped from their file
        images = images[torch.isin(labels, torch.tensor(classes))]
    left = len(images) - params.validation
    if left < params.batch_size:
        raise UserError(
            f"train.batch_size: {params.batch_size} exceeds the training images, {max(left, 0)} of {len(images)} "
            f"after train.validation takes {params.validation}"
        )
    return images[:left], images[left:], tuple(classes)


def new_training(params: Params, images: Tensor, validation: Tensor, runtime: Runtime) -> Training:
    """The run, with freshly initialised weights."""
    torch.manual_seed(params.train.seed)
    schedule = NoiseSchedule(params.schedule)
    model = UNet(params.model, schedule)
    return Training(model, schedule, images, validation, params.train, runtime)


class Curves:
    """The loss curves as csv files, written anew every few seconds while they grow."""

    def __init__(self, timesteps: int) -> None:
        width = timesteps / TIMESTEP_BUCKETS
        self.middles = [(bucket + 0.5) * width for bucket in range(TIMESTEP_BUCKETS)]  # label the ranges of t
        self.rows: dict[str, list[str]] = {
            "loss": ["step,train_loss"],
            "validation": ["step,validation_loss"],
            "loss_by_timestep": ["t,train_loss"],
            "validation_by_timestep": ["t,validation_loss"],
        }
        self.last: dict[str, float] = {}  # the end of each curve, for the summary
        self.written = time.monotonic()

    def add(self, event: Logged | EpochEnd) -> None:
        """Append the event to its curve; the losses by timestep are those of the last epoch alone."""
        if isinstance(event, Logged):
            self.last["train_loss"] = round(event.loss, 6)
            self.rows["loss"].append(f"{event.step},{event.loss:.6f}")
        else:
            self.rows["loss_by_timestep"][1:] = self._by_timestep(event.training)
            if event.validation is not None:
                mean = event.validation.nanmean().item()
                self.last["validation_loss"] = round(mean, 6)
                self.rows["validation"].append(f"{event.step},{mean:.6f}")
                self.rows["validation_by_timestep"][1:] = self._by_timestep(event.validation)
        if time.monotonic() - self.written > SECONDS_BETWEEN_WRITES:
            self.write()

    def facts(self) -> dict[str, Any]:
        """What `load` takes to go on."""
        return {"rows": self.rows, "last": self.last}

    def load(self, facts: dict[str, Any]) -> None:
        """Go on from where other curves were."""
        self.rows, self.last = facts["rows"], facts["last"]

    def write(self) -> None:
        """Write every curve as it is now."""
        for curve, rows in self.rows.items():
            write_whole(METRICS / f"{curve}.csv", ("\n".join(rows) + "\n").encode())
        self.written = time.monotonic()

    def _by_timestep(self, losses: Tensor) -> list[str]:
        """A row for each range of t in which a t fell."""
        pairs = zip(self.middles, losses.tolist(), strict=True)
        return [f"{middle:g},{loss:.6f}" for middle, loss in pairs if not math.isnan(loss)]


if __name__ == "__main__":
    run(main)
