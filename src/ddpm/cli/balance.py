"""Fill the rare classes of an imbalanced set with drawn images: `python -m ddpm.cli.balance --help`."""

if __name__ == "__main__":  # before all else, which takes seconds: Ctrl-C may come meanwhile
    from ddpm.pipeline.process import arm

    arm()

import argparse
import contextlib
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from ddpm.balancing.checks import check_model, check_same, missing, warn_of_absent, warn_of_lack
from ddpm.balancing.drawing import check_filter
from ddpm.balancing.filling import Progress, Source, Tally, begun, fill
from ddpm.balancing.folder import Contents, check_free, whole, write_folder
from ddpm.classifier.model import load_classifier
from ddpm.cli.balance_options import arguments
from ddpm.cli.drawing_options import fitting, sampler_params
from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import CPU
from ddpm.images.card import DataCard
from ddpm.images.splits import load_split
from ddpm.networks.checkpoint import load_model
from ddpm.parallel.group import Group, join, place
from ddpm.parallel.launch import shared_out
from ddpm.parallel.resume import State, Stop, stopping
from ddpm.pipeline.console import UserError, progress, run, shown
from ddpm.pipeline.process import sha256
from ddpm.sampling.drawing import check_sampler, fewest_batches, sample_batch
from ddpm.sampling.samplers import SamplerParams


class Job(NamedTuple):
    """What is to be done.

    wanted: how many images to draw, by label. settings: what decides the result, JSON-compatible.
    """

    card: DataCard
    source: Source
    wanted: dict[int, int]
    settings: dict[str, Any]


def main() -> None:
    """Draw what is missing, and write the folder; of several processes that draw together only the first writes."""
    args = arguments()
    params = sampler_params(args)
    check_free(args.out)
    runtime = start()
    silence = contextlib.redirect_stderr(io.StringIO())  # of warnings, which the first process gives

    def fewest() -> int:
        with silence:
            job = prepared(args, params, runtime, CPU)
        return sum(fewest_batches(job.source.loaded.card, count, runtime) for count in job.wanted.values())

    if shared_out(runtime.device, fewest, "ddpm.cli.balance", sys.argv[1:]):
        return
    group = place()
    with contextlib.nullcontext() if group.rank == 0 else silence:
        job = prepared(args, params, runtime, runtime.device)
    join(group, CPU)
    group.agree({**job.settings["sha256"], "precision": str(runtime.precision)})
    if group.rank == 0:
        state = State("balance", key_of(job))
        with stopping() as stop, whole(args.out) as folder:
            found = draw(job, state, stop, group)
            write(folder, job, found, stop)
        state.drop()
        report(job, found.tallies)
    else:
        with stopping() as stop:
            draw(job, None, stop, group)


def prepared(args: argparse.Namespace, params: SamplerParams, runtime: Runtime, device: torch.device) -> Job:
    """Read all files, and see that they fit together.

    Args:
        device: where the model is to be.

    Raises:
        UserError: they do not, or one cannot be read.
    """
    test_file = vars(args).get("test", args.data.with_name("test.safetensors"))
    files = {"data": args.data, "test": test_file, "model": args.model, "classifier": args.classifier}
    if test_file.exists() and args.data.exists() and test_file.samefile(args.data):
        raise UserError(f"{test_file}: has the training images already; give those for testing with --test")
    digests = {name: sha256(path) for name, path in files.items() if path.is_file()}  # missing ones are named below
    train, test = load_split(args.data), load_split(test_file)
    loaded, classifier = load_model(args.model, device), load_classifier(args.classifier)
    check_same(train.card, args.data, test.card, test_file, "name")
    for card, path in ((loaded.card.data, args.model), (classifier.data, args.classifier)):
        check_same(train.card, args.data, card, path)
    try:
        check_filter(classifier)
    except UserError as error:
        raise UserError(f"{args.classifier}: {error}") from None
    wanted = missing(train, vars(args).get("target"), train.card.labels(params.classes, "--classes"))
    check_model(loaded.card, args.model, train, args.data, wanted)
    warn_of_absent(train, test)
    params = fitting(params, args, loaded.card).model_copy(update={"classes": ()})
    check_sampler(loaded, params)
    if changed := [str(path) for name, path in files.items() if sha256(path) != digests.get(name)]:
        raise UserError(f"{', '.join(changed)}: changed while it was read; run this again")
    settings: dict[str, Any] = {
        "sha256": digests,
        "wanted": {train.card.classes[label]: count for label, count in wanted.items()},
        "seed": args.seed,
        "least_probability": args.least_probability,
        "most_tries": args.most_tries,
        "sampler": params.model_dump(mode="json", exclude={"classes"}),
    }
    least, tries = args.least_probability, args.most_tries
    source = Source(loaded, classifier, params, args.seed, runtime, train.split, test.split, least, tries)
    return Job(train.card, source, wanted, settings)


def key_of(job: Job) -> str:
    """A hash of all that decides the result, code, machine and batches among it: other batches round otherwise."""
    library = Path(__file__).parents[1]
    code = {str(path.relative_to(library)): sha256(path) for path in library.rglob("*.py")}
    runtime = job.source.runtime
    facts = [job.settings, code, runtime.describe(), sample_batch(job.source.loaded, runtime)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def draw(job: Job, state: State | None, stop: Stop, group: Group) -> Progress:
    """Draw the images, or those that are left of a run that was cut off; whole batches are saved on the way.

    Args:
        state: of the first process.

    Raises:
        UserError: someone has asked the process to end. In another process than the first: SystemExit.
    """
    saved = group.from_first(state.load() if state else None)
    found = before = begun(job.card.shape, saved.arrays if saved else {}, saved.facts if saved else {})
    total = sum(job.wanted.values())
    if saved and state:
        print(f"resuming after {len(found.kept.numbers)} of {total} images", file=sys.stderr)

    def after_step(_: int) -> None:
        if stop.requested:
            done = len(found.kept.numbers)
            raise UserError(f"interrupted after {done} of {total} images; the same command goes on from there")

    begun_with = len(found.kept.numbers)
    try:
        with progress(desc="balance", total=total, initial=begun_with, unit="img", disable=not state) as bar:
            for found in fill(job.source, job.wanted, before, after_step, group):
                bar.update(len(found.kept.numbers) - bar.n)
                label, tally = [*found.tallies.items()][-1]
                bar.set_postfix_str(f"{job.card.classes[label]}: {tally.candidates} candidates", refresh=False)
                if state and state.due():
                    state.save(*found.saved())
    finally:
        if state:
            state.save(*found.saved())
    return found


def write(folder: Path, job: Job, found: Progress, stop: Stop) -> None:
    """Write the folder.

    Raises:
        UserError: someone has asked the process to end.
    """
    source = job.source
    model = job.settings["sha256"]["model"]
    contents = Contents(job.card, source.train, source.fresh, found.kept, source.seed, model, job.settings)
    total = sum(len(labels) for labels in (source.train.labels, source.fresh.labels, found.kept.labels))
    with progress(desc="write", total=total, unit="img") as bar:
        for _ in write_folder(folder, contents):
            bar.update()
            if stop.requested:
                raise UserError("interrupted while the pictures were written; the same command goes on from there")


def report(job: Job, tallies: dict[int, Tally]) -> None:
    """A table of the classes, and a warning for each that has not got all that it lacks."""
    counts = job.source.train.labels.bincount(minlength=len(job.card.classes)).tolist()
    table = []
    for label, (name, count) in enumerate(zip(job.card.classes, counts, strict=True)):
        tally, wanted = tallies.get(label, Tally()), job.wanted.get(label, 0)
        table.append([shown(name, 100), count, tally.kept, tally.candidates, tally.filtered, tally.copies])
        warn_of_lack(name, count, tally, wanted)
    columns = ["class", "real", "drawn", "candidates", "filtered out", "copies"]
    print(pd.DataFrame(table, columns=columns).to_string(index=False))


if __name__ == "__main__":
    run(main)
