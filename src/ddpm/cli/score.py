"""`ddpm score`: score the samples of any generator against real images."""

import hashlib
from pathlib import Path
from typing import Annotated

from platformdirs import user_cache_path
from pydantic import Field

from ddpm.cli.options import Options
from ddpm.cli.page import score_page
from ddpm.cli.reading import named, read_real, read_samples
from ddpm.cli.summary import summary, table_of
from ddpm.images.card import MAX_SIDE, listed
from ddpm.images.preparation import LEAST_SIDE
from ddpm.images.splits import SplitFile
from ddpm.params.data import DataParams
from ddpm.processes.device import Runtime, start
from ddpm.scores import classifier, fit
from ddpm.scores.classifier import NAMES, Recipe, load_classifier, save_classifier
from ddpm.scores.evaluation import check_enough, evaluate
from ddpm.scores.fit import fit_classifiers, training_images
from ddpm.scores.judges import judge_of
from exact_stages.console import UserError
from exact_stages.files import sha256, write_json, write_whole
from exact_stages.params import parse

CLASSIFIER_IMAGES = 180_000  # length of a classifier's training, as in params.yaml


class Score(Options):
    """Score samples of any generator against real images.

    The real images train two classifiers, which supply features, and are kept for the next call; for mnist and
    fashion-mnist judges come along, so that all their scores are on one scale. Each score stands next to that of
    real images. Some are held out: those of a test/ folder, or else a share, chosen by hashes of the files.
    Classes are matched by name. docs/how-to/score.md says what each line means.
    """

    real: Path
    """real images: mnist, fashion_mnist, what data.set may name, or train.safetensors with test.safetensors beside"""
    samples: Path
    """samples: a folder, images.npz, or a file such as data/samples/filtered.safetensors"""
    out: Path | None = None
    """file for all scores, such as scores.json"""
    page: Path | None = None
    """file for a page with pictures, such as score.html"""
    classifiers: Path | None = None
    """folder with classifier-a.safetensors and classifier-b.safetensors of these real images, such as models; of a
    folder without test/, the images are held out that data.test: 0.1 holds out"""
    image_size: Annotated[int, Field(ge=2 * LEAST_SIDE, le=MAX_SIDE)] | None = None
    """pixels a side that all images are brought to; by default the real images' own, or 32 if large or mixed"""

    def run(self) -> None:
        """Score the samples, print a table, and write the files.

        Raises:
            UserError: files are missing, damaged or do not fit together, or there are too few images.
        """
        real_path = named(self.real)
        for source in (real_path, self.samples):
            if not source.exists():
                raise UserError(f"{source}: no such file or folder")
        if self.image_size and self.real.suffix == ".safetensors":
            raise UserError(f"--image-size: the images of {self.real} have their size; leave it out")
        for file in filter(None, (self.out, self.page)):
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_dir() or self.out == self.page:
                raise UserError(f"{file}: is a folder, or both --out and --page; name another file")
        runtime = start()
        wanted = {"image_size": self.image_size, "colour": None, "fit": "crop", "background": "white", "test": 0.1}
        params = parse(DataParams, {"set": str(real_path), **wanted}, "options")
        real = read_real(real_path, params, like_preprocess=self.classifiers is not None)
        samples = read_samples(self.samples, real)
        names = real.train.card.classes
        if none := [name for label, name in enumerate(names) if label not in samples.classes]:
            print(f"note: there are no samples of {listed(none)}, so real images of them are left out")
        test, train = (each.of(samples.classes) for each in (real.test, real.train))
        check_enough(len(samples.images), len(test.images), len(train.images))
        judge = None if self.classifiers else judge_of(real.train, samples.classes)
        files = (
            given(self.classifiers, real.train) if self.classifiers else {} if judge else trained(real.train, runtime)
        )
        found = evaluate((samples.images, samples.labels), test, train, samples.classes, files, runtime, judge=judge)
        lines = summary(found.scores)
        print(table_of(lines))
        if ":" in (scale := found.scores.get("scale", "")):
            print(f"note: {scale}")
        if self.out:
            write_json(self.out, found.scores)
        if self.page:
            write_whole(self.page, score_page(lines, found, samples.images, train.images))


def given(folder: Path, train: SplitFile) -> dict[str, Path]:
    """Return the files of classifiers in a folder by name.

    Raises:
        UserError: a file is missing or damaged, or of other images.
    """
    files = {name: folder / f"classifier-{name}.safetensors" for name in NAMES}
    ours, cards = train.card, {file: load_classifier(file).data for file in files.values()}
    for file, card in cards.items():
        if ours.same_images(card) is False or (card.shape, card.classes) != (ours.shape, ours.classes):
            raise UserError(
                f"{file}: trained on other images than those of --real, or other ones were held out; give the "
                "train.safetensors that it was trained on as --real, or leave --classifiers out"
            )
    return files


def trained(train: SplitFile, runtime: Runtime) -> dict[str, Path]:
    """Train the classifiers as the stage does, unless the cache of this user has them; return their files by name.

    The key of the cache is all that decides them: images, labels, recipes, code, precision and torch.

    Raises:
        UserError: the cache cannot be written to.
    """
    recipes = [Recipe(images_seen=CLASSIFIER_IMAGES, seed=seed) for seed in range(len(NAMES))]
    code = [sha256(Path(file)) for file in (fit.__file__, classifier.__file__)]
    facts = train.card.shape, train.card.classes, recipes, runtime.describe(), code
    key = hashlib.sha256(str(facts).encode())
    for part in (*train.split.images.split(10_000), train.split.labels, train.groups):
        key.update(part.numpy().tobytes())
    folder = user_cache_path("ddpm") / "classifiers"
    files = {name: folder / f"{key.hexdigest()[:32]}-{name}.safetensors" for name in NAMES}
    try:
        for file in files.values():
            load_classifier(file)
    except UserError:  # missing, or damaged
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror}; name a folder for classifiers by XDG_CACHE_HOME") from None
        trainings = [(training_images(train, recipe), recipe) for recipe in recipes]
        found = fit_classifiers("classifiers", trainings, train.card, runtime)
        for file, model in zip(files.values(), found, strict=True):
            save_classifier(file, model)
    return files
