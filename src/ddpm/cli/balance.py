"""`ddpm balance`: fill the rare classes of an imbalanced set with samples."""

import sys
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from ddpm.balancing.filling import SPAN, FillInputs, Sample, Tally, fill
from ddpm.balancing.folder import write_folder
from ddpm.cli.generate import check_free
from ddpm.cli.options import Options, Seed, sampler_params, with_sampler
from ddpm.diffusion.denoiser import NotFiniteError
from ddpm.diffusion.model import load_model
from ddpm.images.card import DataCard, listed
from ddpm.images.splits import SplitFile, load_split
from ddpm.params.sample import wanted_classes
from ddpm.processes.device import start
from ddpm.scores.classifier import load_classifier
from exact_stages.console import UserError, progress, shown
from exact_stages.files import sha256

MEMORISED_BELOW = 25  # images of a class; of 10 images, up to 26 % of the samples are copies (studies/rare_class)
MOST_FILTERED = 1 / 3  # of the candidates; beyond it, filling up harmed classifiers in studies/rare_class


@with_sampler
class Balance(Options):
    """Make a balanced folder from an imbalanced set.

    Try augmentation first. On three sets, samples helped no classifier that was trained with it; see
    docs/how-to/rare-class.md.

    train/<class> has the real training images and, up to a target for each class, samples. Each sample is classified as
    its class, and is no copy of a training image. test/<class> has the test images alone. All are png of one size and
    format. manifest.csv describes each file, and gives the seed and index of each sample. `ddpm generate --classes
    CLASS --seed SEED --first INDEX --count 1` repeats a sample, with the options of balance.json. All is written at the
    end; after Ctrl-C, remove the folder and run the command again.
    """

    data: Path
    """training images, such as data/processed/train.safetensors, with test.safetensors next to it"""
    model: Path
    """class-conditional model, trained on these images, such as models/ddpm.safetensors"""
    classifier: Path
    """filter, trained on these images alone, such as models/classifier-a.safetensors"""
    out: Path
    """new or empty folder, such as data/balanced; dvc add tracks it"""
    target: Annotated[int, Field(ge=1, le=SPAN)] | None = None
    """images that each class is filled up to; by default the size of the largest class"""
    seed: Seed = 0
    """seed of the noise and of the order of files"""

    def run(self) -> None:
        """Sample what is missing, write the folder, and print a table of the classes.

        Raises:
            UserError: files or options do not fit together.
        """
        check_free(self.out)
        test_file = self.data.with_name("test.safetensors")
        if self.data == test_file:
            raise UserError(f"--data {self.data}: has the test images; name the training images next to them")
        train, test = load_split(self.data), load_split(test_file)
        runtime = start()
        loaded, classifier = load_model(self.model, runtime.device), load_classifier(self.classifier)
        _check_same(
            train.card,
            self.data,
            {test_file: test.card, self.model: loaded.card.data, self.classifier: classifier.data},
        )
        params = sampler_params(self, loaded.card)
        counts, labels = _counts_of(train), train.card.labels(params.classes, "--classes")
        target = self.target or max(counts)
        wanted = {label: target - counts[label] for label in labels if counts[label] < target}
        lacking = tuple(train.card.classes[each] for each in wanted)
        wanted_classes(loaded.card, params.model_copy(update={"classes": lacking}))
        for label in wanted:
            if counts[label] < MEMORISED_BELOW:
                few = f"with only {counts[label]} training images, some samples may be copies, which are dropped"
                _warn(f"class {shown(train.card.classes[label], 100)}: {few}")
        if none := [name for name, count in zip(train.card.classes, _counts_of(test), strict=True) if not count]:
            _warn(f"no images of {listed(none)} for test: without their folders, ImageFolder renumbers the others")
        files = {"data": self.data, "test": test_file, "model": self.model, "classifier": self.classifier}
        settings: dict[str, Any] = {
            "sha256": {name: sha256(path) for name, path in files.items()},
            "wanted": {train.card.classes[label]: count for label, count in wanted.items()},
            "seed": self.seed,
            "sampler": params.model_dump(mode="json", exclude={"classes"}),
        }
        inputs = FillInputs(loaded, classifier, params, self.seed, runtime, train.split, test.split)
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            samples, tallies = _sample(inputs, wanted, train.card)
        except NotFiniteError as error:
            raise UserError(f"{error}; fetch the model again, or retrain it") from None
        write_folder(self.out, train.card, train.split, test.split, samples, settings)
        _report(train.card, counts, wanted, tallies)


def _check_same(ours: DataCard, our_file: Path, others: dict[Path, DataCard]) -> None:
    """Refuse files with other classes or another shape than ours; warn of those from other images."""
    for file, theirs in others.items():
        for fact in ("shape", "classes"):
            expected, found = (shown(str(getattr(card, fact)), 200) for card in (ours, theirs))
            if getattr(theirs, fact) != getattr(ours, fact):
                raise UserError(
                    f"{file}: its data card has {fact} {found}, where {our_file} has {expected}; "
                    "use files made from one data set"
                )
    if named := [file for file, theirs in others.items() if ours.same_images(theirs) is False]:
        _warn(f"{listed(named)}: made from other training images than {our_file}; use them if only a few images differ")


def _counts_of(split_file: SplitFile) -> list[int]:
    """Count the images of each class."""
    counts: list[int] = split_file.split.labels.bincount(minlength=len(split_file.card.classes)).tolist()
    return counts


def _sample(inputs: FillInputs, wanted: dict[int, int], card: DataCard) -> tuple[list[Sample], dict[int, Tally]]:
    """Sample the images; return them, and the tallies by label."""
    samples, tallies = list[Sample](), dict[int, Tally]()
    with progress(desc="balance", total=sum(wanted.values()), unit="img") as bar:
        for label, count in wanted.items():
            for tally, kept in fill(inputs, label, count):
                samples += kept
                tallies[label] = tally
                bar.update(len(kept))
                bar.set_postfix_str(f"{card.classes[label]}: {tally.candidates} candidates", refresh=False)
    return samples, tallies


def _report(card: DataCard, counts: list[int], wanted: dict[int, int], tallies: dict[int, Tally]) -> None:
    """Print a table of the classes, and warn of each that still lacks images, or that the model hardly samples."""
    table = []
    for label, count in enumerate(counts):
        name, tally = shown(card.classes[label], 100), tallies.get(label, Tally())
        table.append([name, count, tally.accepted, tally.candidates, tally.filtered, tally.copies])
        if tally.accepted < (lacking := wanted.get(label, 0)):
            _warn(f"class {name}: only {tally.accepted} of {lacking} images; a longer training may give more")
        if tally.filtered > MOST_FILTERED * tally.candidates:
            found = f"the filter rejected {tally.filtered} of {tally.candidates} candidates"
            _warn(f"class {name}: {found}; samples of so weak a model may harm a classifier")
    columns = ["class", "real", "sampled", "candidates", "filtered out", "copies"]
    print(pd.DataFrame(table, columns=columns).to_string(index=False))


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
