"""Fill the rare classes of an imbalanced set with drawn images: `python -m ddpm.balance --help`."""

if __name__ == "__main__":  # before all else, which takes seconds: Ctrl-C may come meanwhile
    from ddpm.runtime.process import arm

    arm()

import argparse
import hashlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ddpm.balancing.checks import check_model, check_same, missing, warn_of_absent, warn_of_lack
from ddpm.balancing.drawing import SPAN, check_filter
from ddpm.balancing.filling import HOPELESS, Progress, Source, Tally, begun, fill
from ddpm.balancing.folder import MANIFEST, SETTINGS, Contents, check_free, whole, write_folder
from ddpm.data.card import DataCard
from ddpm.data.splits import load_split
from ddpm.diffusion.samplers import SamplerParams
from ddpm.drawing_options import LAST_SEED, add_sampler_options, at_least, fitting, sampler_params
from ddpm.networks.checkpoint import load_model
from ddpm.networks.classifier import load_classifier
from ddpm.networks.sampling import check_sampler, sample_batch
from ddpm.runtime.console import UserError, progress, run, shown
from ddpm.runtime.device import start
from ddpm.runtime.process import sha256
from ddpm.runtime.resume import State, Stop, stopping

MOST_TRIES = 1000
LEAST_HELP = "what the filter must give the class at least; it must find no class more probable, in any case"


class Job(NamedTuple):
    """What is to be done.

    wanted: how many images to draw, by label. settings: what decides the result, JSON-compatible.
    """

    card: DataCard
    source: Source
    wanted: dict[int, int]
    settings: dict[str, Any]


def main() -> None:
    """Draw what is missing, and write the folder."""
    args = arguments()
    params = sampler_params(args)
    check_free(args.out)
    job = prepared(args, params)
    state = State("balance", key_of(job))
    with stopping() as stop, whole(args.out) as folder:
        found = draw(job, state, stop)
        write(folder, job, found, stop)
    state.drop()
    report(job, found.tallies)


def prepared(args: argparse.Namespace, params: SamplerParams) -> Job:
    """Read all files, and see that they fit together.

    Raises:
        UserError: they do not, or one cannot be read.
    """
    test_file = vars(args).get("test", args.data.with_name("test.safetensors"))
    files = {"data": args.data, "test": test_file, "model": args.model, "classifier": args.classifier}
    if test_file.exists() and args.data.exists() and test_file.samefile(args.data):
        raise UserError(f"{test_file}: has the training images already; give those for testing with --test")
    runtime = start()
    digests = {name: sha256(path) for name, path in files.items() if path.is_file()}  # missing ones are named below
    train, test = load_split(args.data), load_split(test_file)
    loaded, classifier = load_model(args.model, runtime.device), load_classifier(args.classifier)
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
    library = Path(__file__).parent
    code = {str(path.relative_to(library)): sha256(path) for path in library.rglob("*.py")}
    runtime = job.source.runtime
    facts = [job.settings, code, runtime.describe(), sample_batch(job.source.loaded, runtime)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def draw(job: Job, state: State, stop: Stop) -> Progress:
    """Draw the images, or those that are left of a run that was cut off; whole batches are saved on the way.

    Raises:
        UserError: someone has asked the process to end.
    """
    saved = state.load()
    found = before = begun(job.card.shape, saved.arrays if saved else {}, saved.facts if saved else {})
    total = sum(job.wanted.values())
    if saved:
        print(f"resuming after {len(found.kept.numbers)} of {total} images", file=sys.stderr)

    def after_step(_: int) -> None:
        if stop.requested:
            state.save(*found.saved())
            done = len(found.kept.numbers)
            raise UserError(f"interrupted after {done} of {total} images; the same command goes on from there")

    with progress(desc="balance", total=total, initial=len(found.kept.numbers), unit="img") as bar:
        for found in fill(job.source, job.wanted, before, after_step):
            bar.update(len(found.kept.numbers) - bar.n)
            label, tally = [*found.tallies.items()][-1]
            bar.set_postfix_str(f"{job.card.classes[label]}: {tally.candidates} candidates", refresh=False)
            if state.due():
                state.save(*found.saved())
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


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ddpm.balance",
        description="Make of an imbalanced set a balanced folder: train/<class> has the real training images and, up "
        "to a target for each class, drawn ones that a classifier takes for the class and that are no copies of "
        "training images; test/<class> has the test images, and nothing drawn. All are png of one size and format. "
        f"{MANIFEST} says of each file what it is, and of a drawn one its seed and index: python -m ddpm.generate "
        f"--classes CLASS --seed SEED --first INDEX --count 1 draws it again, with the options of {SETTINGS}.",
        epilog=f"A class that cannot be filled is given up after {HOPELESS} candidates, or --most-tries for each image "
        "wanted, if fewer of them than one in --most-tries can be kept; it has what there is by then, perhaps nothing, "
        "a warning says so, and the exit code is 0 all the same. After Ctrl-C, or any other end, the same command goes "
        "on in the same working folder, and gives the same files; FOLDER is there when it is whole.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    path = partial(option, type=Path, required=True, metavar="FILE", default=argparse.SUPPRESS)
    path("--data", help="training images, such as data/processed/train.safetensors")
    path("--model", help="class-conditional model, trained on them, such as models/ddpm.safetensors")
    path("--classifier", help="filter, trained on them alone, such as models/classifier-a.safetensors")
    path("--out", metavar="FOLDER", help="new or empty folder, such as data/balanced; dvc add tracks it")
    left = partial(option, default=argparse.SUPPRESS)
    left("--test", type=Path, metavar="FILE", help="test images (default: test.safetensors beside --data)")
    most = "as many as the most frequent class has"
    left("--target", type=at_least(1, SPAN), metavar="N", help=f"images that a class is filled up to (default: {most})")
    option("--least-probability", type=_share, default=0.0, metavar="X", help=LEAST_HELP)
    tries = "candidates for each image kept, of which more are not drawn"
    option("--most-tries", type=at_least(1, MOST_TRIES), default=20, metavar="N", help=tries)
    option("--seed", type=at_least(0, LAST_SEED), default=0, metavar="N", help="seed of the noise and of the order")
    add_sampler_options(parser, "names of the classes that are filled; the others stay as they are (default: all)")
    return parser.parse_args()


def _share(text: str) -> float:
    """A number from 0 to below 1."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is not a number from 0 to below 1")
    return found


if __name__ == "__main__":
    run(main)
