"""Process one imbalanced subset: train its model, sample, and compute the rows of its classifiers."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from ddpm.compute.device import Runtime
from ddpm.images.splits import Processed
from ddpm.pictures.grids import rare_picture
from ddpm.pipeline.files import write_whole
from studies.rare_class.comparing import compare
from studies.rare_class.copies import count_copies
from studies.rare_class.generator import train
from studies.rare_class.imbalance import Imbalanced, count_and_seed, make_imbalanced
from studies.rare_class.keeping import SCRATCH, Facts, key, made
from studies.rare_class.methods import Method, Sampled
from studies.rare_class.params import Params, Pipeline, StudyParams
from studies.rare_class.sampling import load_samples, sample


class Row(NamedTuple):
    """A row to compute: what it is about, the key of its result, and the computation."""

    of: Facts
    key: str
    compute: Callable[[], Facts]


class Images(NamedTuple):
    """The processed images of a study, with hashes of their files."""

    train: Processed
    test: Processed
    train_key: str
    test_key: str


class Setting(NamedTuple):
    """Everything that all subsets of a study share."""

    params: Params
    pipeline: Pipeline
    study: StudyParams
    images: Images
    runtime: Runtime

    @property
    def rare(self) -> list[int]:
        """Return the labels of the rare classes."""
        return [*self.images.train.card.labels(self.study.classes, "classes")]


class Subset:
    """One random choice of the few images of the rare classes.

    Everything that learns or samples gets the kept images (`parts.kept`) alone.
    """

    def __init__(self, setting: Setting, name: str) -> None:
        """Compute the keys; everything else is made on demand."""
        self.setting, self.name = setting, name
        self.params, self.rare = setting.params, setting.rare
        count, self.seed = count_and_seed(name)
        self.counts = dict.fromkeys(self.rare, count)
        pipeline, study = setting.pipeline, setting.study
        self.recipe = pipeline.recipe(self.params.train)
        self.tested_on = setting.images.test_key if study.test == "test" else "validation_pool"
        self.key = key(make_imbalanced, setting.images.train_key, self.counts, self.params.validation_pool, self.seed)
        self.model_key = key(train, self.key, pipeline.schedule, pipeline.model, self.recipe)
        self.sampled_key = key(sample, self.model_key, self.params.sample, study.frequent, self.params.learn)
        self.picture = SCRATCH / f"{self.sampled_key}.png"  # real images and samples of the rare classes

    @cached_property
    def parts(self) -> Imbalanced:
        """Return the images that are kept, and the validation pool."""
        return make_imbalanced(self.setting.images.train, self.counts, self.params.validation_pool, self.seed)

    def model(self) -> tuple[Path, Facts]:
        """Return the model file, and how its training ended."""
        pipeline, runtime = self.setting.pipeline, self.setting.runtime
        recipe = (pipeline.schedule, pipeline.model, self.recipe)
        name = f"{self.name}: train"
        return made(self.model_key, partial(train, name, self.parts.kept, *recipe, runtime, self.model_key))

    def samples_file(self) -> tuple[Path, Facts]:
        """Return the file of samples, and the share that the filter takes of each class."""
        params, frequent, runtime = self.params, self.setting.study.frequent, self.setting.runtime
        given = (self.parts.kept, self.rare, frequent, self.model()[0])
        return made(self.sampled_key, partial(sample, self.name, *given, params.sample, params.learn, runtime))

    @cached_property
    def sampled(self) -> Sampled:
        """Return the samples."""
        return load_samples(self.samples_file()[0])

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the generator, of each classifier and, on test images, of each method's copies."""
        study = self.setting.study
        yield Row({"of": "generator", "subset": self.name}, key(sample, self.sampled_key), self.generator)
        for method in study.methods:
            for seed in study.seeds:
                facts = (self.sampled_key, self.tested_on, method, seed, self.params.learn)
                of = {"of": "classifier", "subset": self.name, "method": method, "seed": seed}
                yield Row(of, key(compare, *facts), partial(self.classifier, method, seed))
            if study.test == "test" and Method.parse(method).sampled:
                of = {"of": "copies", "subset": self.name, "method": method}
                yield Row(of, key(count_copies, self.sampled_key, self.tested_on, method), partial(self.copies, method))

    def generator(self) -> Facts:
        """Return facts about the generator, and write a figure of its samples."""
        names = self.setting.images.train.card.classes
        rows = {label: (self.parts.kept.of([label]).images, self.sampled.shown(label)) for label in self.rare}
        write_whole(self.picture, rare_picture(rows, names))
        return {"rare": {names[label]: label for label in self.rare}, **self.model()[1], **self.samples_file()[1]}

    def classifier(self, method: str, seed: int) -> Facts:
        """Return what a classifier achieves."""
        kept, validation_pool = self.parts
        test = self.setting.images.test if self.setting.study.test == "test" else validation_pool
        name, learn = f"{self.name}: {method}, seed {seed}", self.params.learn
        return compare(name, kept, self.sampled, self.rare, test.split, method, seed, learn, self.setting.runtime)

    def copies(self, method: str) -> Facts:
        """Count the copies among a method's samples."""
        return count_copies(self.parts.kept, self.sampled, self.rare, self.setting.images.test, method)
