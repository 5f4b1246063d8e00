"""Measure what each part of the recipe is worth: run the default without it, as DVC experiments of equal CPU time.

    python -m benchmarks.recipe --minutes 3 --jobs 2

Every experiment trains on one thread. Its epochs follow from the variant's speed, which is measured first. Results that
studies/recipe/trials.csv has for this code and this default are not run again. A table of all results is printed, and
drawn in studies/recipe/trials.png.
Experiments do not change the workspace, but params.yaml, dvc.lock and all code must be committed.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from dvc.api import DVCFileSystem
from matplotlib.figure import Figure
from ruamel.yaml import YAML

from benchmarks.arguments import at_least
from benchmarks.scoring import Scorer
from benchmarks.trainings import on_noise
from ddpm.compute.device import Runtime, start
from ddpm.images.card import DataCard
from ddpm.images.splits import load_samples, load_split
from ddpm.pictures.figures import to_png
from ddpm.train import prepare
from exact_stages.console import UserError, progress, run
from exact_stages.files import write_whole
from exact_stages.params import load_params, parse, read_yaml
from stages.train import TRAIN, Params

TABLE = Path("studies/recipe/trials.csv")
PATCHES = ["model.patch_size=2", "model.channels=[64,128]"]
CHANGES = {
    "the default": [],
    "attention": ["model.attention=true"],
    "2 x 2 pixels as channels, 64 and 128 wide": PATCHES,
    "... and attention": [*PATCHES, "model.attention=true"],
    "32 channels at full resolution": ["model.channels=[32,64,128]"],
    "one block at the bottleneck": ["model.bottleneck_blocks=1"],
    "three blocks at the bottleneck": ["model.bottleneck_blocks=3"],
    "bottleneck of 192 channels": ["model.channels=[16,64,192]"],
    "batch 32": ["train.batch_size=32"],
    "batch 128": ["train.batch_size=128"],
    "lr 0.0015": ["train.lr=0.0015"],
    "lr 0.006": ["train.lr=0.006"],
    "constant learning rate": ["train.lr_decay=none"],
    "no warm-up": ["train.warmup_steps=0"],
    "weights not averaged": ["train.ema_decay=0"],
    "Adam for all weights, lr 0.001": ["train.optimizer=adam", "train.lr=0.001"],
    "classes not told": ["model.class_conditional=false"],
    "no Fourier features of the input": ["model.fourier_features=[]"],
    "no share of t uniform in log SNR": ["train.log_snr_uniform=0"],
    "neither of the two": ["model.fourier_features=[]", "train.log_snr_uniform=0"],
    "no stable target": ["train.target_images=0"],
    "t uniform": ["train.log_snr_center=null", "train.log_snr_uniform=0"],
    "log-SNR centered at 0": ["train.log_snr_center=0.0"],
    "log-SNR centered at -2": ["train.log_snr_center=-2.0"],
    "t independent within a batch": ["train.timestep_sampling=uniform"],
    "loss of the noise": ["train.loss=noise"],
    "noise predicted, and its loss": ["train.loss=noise", "model.prediction=noise"],
    "the article's blocks": ["model.block=double_conv"],
}
WARMUP_STEPS, TIMED_STEPS, ROUNDS = 5, 10, 7
SECONDS_BETWEEN_LOOKS = 5


class Trial(NamedTuple):
    """One experiment: a change of the default, and everything that its result depends on; a row begins with these."""

    change: str
    seed: int
    cpu_minutes: float
    samples: int
    src_tree: str
    default: str

    @property
    def name(self) -> str:
        """Return the name of the experiment in DVC."""
        letters = "".join(letter if letter.isalnum() else "-" for letter in self.change)
        return f"recipe-{letters}-{hashlib.sha256(repr(self).encode()).hexdigest()[:7]}"


def main() -> None:
    """Queue the missing trials, write each result as it comes, and print the table."""
    args = arguments()
    if output("git", "status", "--porcelain", "src", "stages", "params.yaml", "dvc.yaml", "dvc.lock"):
        raise UserError("git: code or params have changes; commit them first, so that the table names what ran")
    torch.set_num_threads(1)
    runtime = start()
    base = (args.minutes, args.count, output("git", "rev-parse", "--short=7", "HEAD:src").strip(), default_digest())
    rows = pd.DataFrame(columns=Trial._fields)
    if TABLE.exists():
        rows = pd.read_csv(TABLE, dtype={"src_tree": str, "default": str})
    done = set(rows[[*Trial._fields]].itertuples(index=False, name=None))
    wanted = [Trial(change, seed, *base) for seed in args.seeds for change in args.changes or CHANGES]
    waiting = [trial for trial in wanted if trial not in done]
    known = queue_states()
    new = [trial for trial in waiting if known.get(trial.name) not in {"Queued", "Running"} and not experiment(trial)]
    for trial in progress(new, desc="queue", unit="trial"):
        data, images = images_of_an_epoch()
        epochs = images_per_second(trial.change, runtime, data) * 60 * args.minutes / images
        settings = [*CHANGES[trial.change], f"train.epochs={epochs:.4g}", "train.images=null"]  # no other bound
        settings += [f"train.seed={trial.seed}", f"sample.population.count={args.count}"]
        options = [f"--set-param={setting}" for setting in settings]
        output("dvc", "exp", "run", "--queue", "--force", f"--name={trial.name}", *options, "sample@population")
    if new:
        start_workers(args.jobs)
    if waiting:
        scorer = Scorer(runtime)
        for trial, reference in finished(waiting):
            rows = pd.concat([rows, pd.DataFrame([trial._asdict() | result(reference, args.minutes, scorer)])])
            write_whole(TABLE, rows.to_csv(index=False).encode())
    rows = rows[(rows[[*Trial._fields[2:]]] == base).all(axis=1)]
    print_table(rows)
    write_whole(TABLE.with_suffix(".png"), to_png(dots(rows)))


def default_digest() -> str:
    """Hash the default's recipe and its data, without length and seed."""
    values = read_yaml(Path("params.yaml"))
    recipe = {section: values[section] for section in ("data", *Params.model_fields)}
    for key in ("images", "epochs", "seed"):
        del recipe["train"][key]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:7]


@cache
def images_of_an_epoch() -> tuple[DataCard, int]:
    """Return the data card of the training images, and their number without the validation images."""
    params = load_params(Params)
    setup = prepare(load_split(TRAIN), params.model, params.train)
    return setup.card, len(setup.images.labels)


def images_per_second(change: str, runtime: Runtime, data: DataCard) -> float:
    """Measure how many such images train in a second of one thread's CPU time; the median of a few rounds."""
    values = read_yaml(Path("params.yaml"))
    for setting in CHANGES[change]:
        path, _, value = setting.partition("=")
        section, key = path.split(".")
        values[section][key] = YAML(typ="safe", pure=True).load(StringIO(value))
    params = parse(Params, values, change)
    count = params.train.batch_size * (WARMUP_STEPS + ROUNDS * TIMED_STEPS)
    steps = on_noise(params, count, runtime, data).run()
    for _ in range(WARMUP_STEPS):
        next(steps)
    rates = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(TIMED_STEPS):
            next(steps)
        rates.append(TIMED_STEPS * params.train.batch_size / (time.process_time() - began))
    return statistics.median(rates)


def start_workers(jobs: int) -> None:
    """Start DVC's workers, with one thread for each experiment."""
    one_thread = {**os.environ, "DDPM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = ["dvc", "queue", "start", f"--jobs={jobs}"]
    subprocess.run(command, env=one_thread, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(trials: list[Trial]) -> Iterator[tuple[Trial, str]]:
    """Yield each trial and its git reference, as soon as it has one.

    Raises:
        UserError: an experiment failed.
    """
    waiting = list(trials)
    with progress(desc="experiments", total=len(trials), unit="trial") as bar:
        while waiting:
            for trial in list(waiting):
                if reference := experiment(trial):
                    waiting.remove(trial)
                    bar.update()
                    yield trial, reference
            states = queue_states()
            if failed := [trial for trial in waiting if states.get(trial.name) == "Failed"]:
                raise UserError(f"{failed[0].change}: the experiment failed; see dvc queue logs {failed[0].name}")
            time.sleep(SECONDS_BETWEEN_LOOKS)


def queue_states() -> dict[str, str]:
    """Return the state of each experiment in DVC's queue: Queued or Running, and finally Success or Failed."""
    rows = [line.split() for line in output("dvc", "queue", "status").splitlines()]
    ended_first = sorted((row for row in rows if len(row) > 2), key=lambda row: row[-1] in {"Queued", "Running"})
    return {row[1]: row[-1] for row in ended_first}


def experiment(trial: Trial) -> str | None:
    """Return the reference of a finished experiment."""
    return next(iter(output("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{trial.name}").split()), None)


def result(reference: str, minutes: float, scorer: Scorer) -> dict[str, Any]:
    """Return the results of an experiment; its speed is the one that its length was computed from."""
    summary = json.loads(output("git", "show", f"{reference}:metrics/train/summary.json"))
    epochs = YAML(typ="safe", pure=True).load(output("git", "show", f"{reference}:params.yaml"))["train"]["epochs"]
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder, "samples")
        DVCFileSystem(rev=reference).get_file("data/samples/population.safetensors", str(samples))
        images = load_samples(samples).images
    return {
        "images_per_second": round(epochs * images_of_an_epoch()[1] / minutes / 60, 1),
        "images_seen": summary["images_seen"],
        "parameters": summary["parameters"],
        **scorer.frechet(images),
        **scorer.two_sample(images),
    }


def print_table(rows: pd.DataFrame) -> None:
    """Print a row for each change, the best first; with several seeds, their mean and each of them."""
    print("| change | parameters | images/s | images seen | Frechet distance, a | each seed | two-sample test, a |")
    print("| --- " * 7 + "|")
    groups = [group for _, group in rows.groupby("change")]
    for group in sorted(groups, key=lambda group: group["frechet_a"].mean()):
        seeds = ", ".join(f"{distance:.2f}" for distance in group["frechet_a"])
        mean = group.mean(numeric_only=True)
        print(
            f"| {group['change'].iloc[0]} | {mean['parameters']:.0f} | {mean['images_per_second']:.0f} "
            f"| {mean['images_seen']:.0f} | {mean['frechet_a']:.2f} | {seeds} "
            f"| {mean['two_sample_a']:.3f} |"
        )


def dots(rows: pd.DataFrame) -> Figure:
    """Plot the Frechet distance of each change, the best on top: a dot for each seed."""
    means = rows.groupby("change")["frechet_a"].mean().sort_values(ascending=False)
    places = {change: place for place, change in enumerate(means.index)}
    figure = Figure(figsize=(8, 0.27 * len(places) + 0.8), layout="constrained")
    axis = figure.subplots()
    if "the default" in places:
        axis.axvline(means["the default"], color="tab:orange", linewidth=1)
    colours = ["tab:orange" if change == "the default" else "tab:blue" for change in rows["change"]]
    axis.scatter(rows["frechet_a"], rows["change"].map(places), color=colours, s=24)
    axis.set(xscale="log", xlabel=f"Frechet distance, classifier a, after {rows['cpu_minutes'].iloc[0]:g} CPU minutes")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="x", which="minor", labelsize=8)
    axis.set_yticks(range(len(places)), [*places], fontsize=9)
    axis.grid(alpha=0.3, which="both")
    return figure


def output(*command: str) -> str:
    """Run a command, and return its standard output."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="CPU minutes of training, on one thread")
    parser.add_argument("--jobs", type=at_least(1), default=2, help="experiments side by side")
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[0])
    parser.add_argument("--changes", choices=CHANGES, nargs="+", metavar="CHANGE", help="by default all")
    parser.add_argument("--count", type=at_least(2), default=2000, help="samples that are scored")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
