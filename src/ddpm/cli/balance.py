"""`ddpm balance`: fill the rare classes of an imbalanced set with samples."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
import torch
from pydantic import Field

from ddpm.balancing.candidates import SPAN
from ddpm.balancing.checks import check_same, counts_of, missing, warn, warn_of_set
from ddpm.balancing.filling import Accepted, FillInputs, Tally, fill, none_accepted
from ddpm.balancing.folder import Contents, whole, write_folder
from ddpm.classifier.model import load_classifier
from ddpm.cli.generate import check_free
from ddpm.cli.options import Options, Seed, sampler_params, with_sampler
from ddpm.compute.device import Runtime, start
from ddpm.images.splits import Processed, load_split
from ddpm.model import load_model
from ddpm.sample import wanted_classes
from exact_stages.console import UserError, progress, shown
from exact_stages.files import sha256

MOST_FILTERED = 1 / 3  # of the candidates; beyond it, filling up harmed classifiers in studies/rare_class


class Job(NamedTuple):
    """The work of one command.

    wanted: how many images to sample, by label. settings: everything that determines the result, JSON-compatible.
    """

    train: Processed
    test: Processed
    inputs: FillInputs
    wanted: dict[int, int]
    settings: dict[str, Any]


@with_sampler
class Balance(Options):
    """Make a balanced folder from an imbalanced set.

    Try augmentation first. On MNIST, samples helped only classifiers that were trained without it; see
    docs/how-to/rare-class.md.

    train/<class> has the real training images and, up to a target for each class, samples. Each sample is classified as
    its class, and is no copy of a training image. test/<class> has the test images alone. All are png of one size and
    format. manifest.csv describes each file, and gives the seed and index of each sample. `ddpm generate --classes
    CLASS --seed SEED --first INDEX --count 1` repeats a sample, with the options of balance.json. The folder appears
    when it is complete; after Ctrl-C, run the command again.
    """

    data: Path
    """training images, such as data/processed/train.safetensors"""
    model: Path
    """class-conditional model, trained on these images, such as models/ddpm.safetensors"""
    classifier: Path
    """filter, trained on these images alone, such as models/classifier-a.safetensors"""
    out: Path
    """new or empty folder, such as data/balanced; dvc add tracks it"""
    test: Path | None = None
    """test images; by default test.safetensors next to --data"""
    target: Annotated[int, Field(ge=1, le=SPAN)] | None = None
    """images that each class is filled up to; by default the size of the largest class"""
    least_probability: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """least probability of the class, by the filter; it must also be the most probable class"""
    most_tries: Annotated[int, Field(ge=1, le=1000)] = 20
    """candidates for each kept image; beyond this, the class is given up with a warning"""
    seed: Seed = 0
    """seed of the noise and of the order of files"""

    def run(self) -> None:
        """Sample what is missing, write the folder, and print a table of the classes.

        Raises:
            UserError: files or options do not fit together.
        """
        check_free(self.out)
        if self.out.is_mount() or self.out.resolve() == Path.cwd():
            raise UserError(f"--out {self.out}: this folder cannot be replaced; name a new one inside it")
        job = self._prepared(start())
        with whole(self.out) as folder:
            accepted, tallies = _sample(job)
            contents = Contents(job.train.card, job.train.split, job.test.split, accepted, job.settings)
            total = len(accepted.numbers) + sum(len(each.split.labels) for each in (job.train, job.test))
            with progress(write_folder(folder, contents), desc="write", total=total, unit="img") as bar:
                for _ in bar:
                    pass
        _report(job, tallies)

    def _prepared(self, runtime: Runtime) -> Job:
        """Read all files, and check that they fit together."""
        if self.data.is_dir():
            raise UserError(f"--data {self.data}: a folder; give data/processed/train.safetensors, made by `dvc repro`")
        test_file = self.test or self.data.with_name("test.safetensors")
        train, test = load_split(self.data), load_split(test_file)
        if test_file.samefile(self.data):
            raise UserError(f"{test_file}: has the training images already; give the test images with --test")
        loaded, classifier = load_model(self.model, runtime.device), load_classifier(self.classifier)
        check_same(train.card, self.data, test.card, test_file, "name")
        check_same(train.card, self.data, loaded.card.data, self.model)
        check_same(train.card, self.data, classifier.data, self.classifier)
        params = sampler_params(self, loaded.card)
        wanted = missing(train, self.target, train.card.labels(params.classes, "--classes"))
        lacking = tuple(train.card.classes[each] for each in wanted)
        wanted_classes(loaded.card, params.model_copy(update={"classes": lacking}))
        warn_of_set(train, test, loaded.card, wanted)
        if not wanted:
            warn("no sample is needed: all classes have as many images as the largest, or as --target")
        files = {"data": self.data, "test": test_file, "model": self.model, "classifier": self.classifier}
        settings: dict[str, Any] = {
            "sha256": {name: sha256(path) for name, path in files.items()},
            "wanted": {train.card.classes[label]: count for label, count in wanted.items()},
            **self.model_dump(include={"seed", "least_probability", "most_tries"}),
            "sampler": params.model_dump(mode="json", exclude={"classes"}),
        }
        judged = self.least_probability, self.most_tries
        inputs = FillInputs(loaded, classifier, params, self.seed, runtime, train.split, test.split, *judged)
        return Job(train, test, inputs, wanted, settings)


def _sample(job: Job) -> tuple[Accepted, dict[int, Tally]]:
    """Sample the images; return them, and the tallies by label."""
    parts, tallies = [none_accepted(job.train.card.shape)], dict[int, Tally]()
    with progress(desc="balance", total=sum(job.wanted.values()), unit="img") as bar:
        for label, wanted in job.wanted.items():
            for tally, accepted in fill(job.inputs, label, wanted):
                parts.append(accepted)
                tallies[label] = tally
                bar.update(len(accepted.numbers))
                bar.set_postfix_str(f"{job.train.card.classes[label]}: {tally.candidates} candidates", refresh=False)
    return Accepted(*map(torch.cat, zip(*parts, strict=True))), tallies


def _report(job: Job, tallies: dict[int, Tally]) -> None:
    """Print a table of the classes, and warn of each that still lacks images, or that the model hardly samples."""
    table = []
    for label, (name, count) in enumerate(zip(job.train.card.classes, counts_of(job.train), strict=True)):
        tally = tallies.get(label, Tally())
        table.append([shown(name, 100), count, tally.accepted, tally.candidates, tally.filtered, tally.copies])
        if tally.accepted < (wanted := job.wanted.get(label, 0)):
            found = f"only {tally.accepted} of {wanted} images"
            warn(f"class {shown(name, 100)}: {found}; a longer training may give more")
        if tally.filtered > MOST_FILTERED * tally.candidates:
            found = f"the filter rejected {tally.filtered} of {tally.candidates} candidates"
            warn(f"class {shown(name, 100)}: {found}; samples of so weak a model may harm a classifier")
    columns = ["class", "real", "sampled", "candidates", "filtered out", "copies"]
    print(pd.DataFrame(table, columns=columns).to_string(index=False))
