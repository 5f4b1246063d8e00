"""What the stages of studies/dvc.yaml share: the default, equal minutes, MNIST, its judge, and rows that are kept."""

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import torch
from ruamel.yaml import YAML

from ddpm.cli.reading import Real, named, read_real
from ddpm.diffusion.model import LoadedModel, load_model
from ddpm.diffusion.sets import Sampling
from ddpm.diffusion.training import Training
from ddpm.images.splits import Samples
from ddpm.params.data import DataParams
from ddpm.params.sample import SetParams, SharedParams, fitted_set
from ddpm.processes.checkpoints import Checkpoints
from ddpm.processes.device import Runtime
from ddpm.processes.world import ALONE
from ddpm.scores.classifier import features_and_logits, load_classifier
from ddpm.scores.comparisons import compare, draw_places
from ddpm.scores.distances import share_of
from ddpm.scores.judges import judge_of
from exact_stages.console import UserError
from exact_stages.files import read_yaml
from exact_stages.params import parse
from exact_stages.stage import Stage
from stages.train import Params

DEFAULT, RATES = Path("studies/default.yaml"), Path("studies/rates.json")  # `make studies` renews the former
AS_THEY_ARE = {"image_size": 28, "colour": False, "fit": "crop", "background": "white", "test": 0.1}
SEED = 0  # of the real images beside samples, as `evaluate` has it
K = TypeVar("K")


def changed(settings: Sequence[str]) -> dict[str, Any]:
    """Return the default with changes such as train.lr=0.006.

    Raises:
        UserError: the default has no such key.
    """
    values = read_yaml(DEFAULT)
    for each in settings:
        name, _, value = each.partition("=")
        *sections, key = name.split(".")
        section = reduce(lambda found, part: found.get(part, {}), sections, values)
        if key not in section:
            raise UserError(f"studies/dvc.yaml: {each}: {DEFAULT} has no {name}")
        section[key] = YAML(typ="safe", pure=True).load(value)  # as read_yaml does
    return values


def params_of(values: dict[str, Any]) -> Params:
    """Return the sections that a training reads."""
    return parse(Params, {name: values[name] for name in Params.model_fields}, str(DEFAULT), complete=True)


def images_in(minutes: float, study: str, item: str) -> int:
    """Return how many images a core trains on in so many minutes.

    Raises:
        UserError: that was not measured.
    """
    rates = json.loads(RATES.read_bytes()).get(study, {})
    if item not in rates:
        raise UserError(f"{RATES}: no {study}.{item}; measure it, see CONTRIBUTING.md")
    return round(60 * minutes * rates[item])


def mnist() -> Real:
    """Return MNIST as `preprocess` makes it; its files have known hashes, so no stage depends on the workspace's."""
    folder = named(Path("mnist"))
    return read_real(folder, DataParams.model_validate({"set": str(folder), **AS_THEY_ARE}))


def kept(training: Training, runtime: Runtime) -> LoadedModel:
    """Return the model of the file that a training writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        training.save(path)
        return load_model(path, runtime.device)


def sampled(loaded: LoadedModel, values: dict[str, Any], runtime: Runtime, checkpoints: Checkpoints) -> Samples:
    """Return the set `scored` of a model, by the default with changes."""
    shared = parse(SharedParams, values["sample"], str(DEFAULT), "sample")
    of_set = parse(SetParams, values["sample"]["scored"], str(DEFAULT), "sample.scored")
    sampling = Sampling("scored", loaded, fitted_set("scored", shared, of_set, loaded.card)[0], of_set)
    sampling.run(runtime, ALONE, checkpoints)
    return sampling.samples()


class Judged:
    """Scores samples of digits by the judge of MNIST, with the rows of `evaluate`; it sees real images once."""

    def __init__(self, real: Real, runtime: Runtime) -> None:
        judge = judge_of(real.train, range(10))
        assert judge, "it comes with the package"
        self.reference, self.classifier = judge.reference, load_classifier(judge.path)
        self.device, self.labels = runtime.device, (real.test.split.labels, real.train.split.labels)
        self.test, self.train = (
            features_and_logits(self.classifier, each.split.images, self.device)[0] for each in (real.test, real.train)
        )

    def row(self, samples: Samples) -> dict[str, float | None]:
        """Return the distance and the excess with their errors, and the conditional accuracy if there are labels."""
        features, logits = features_and_logits(self.classifier, samples.images, self.device)
        own, (test, train) = samples.labels, self.labels
        if own is None:
            own, test, train = torch.zeros(len(features), dtype=torch.long), test * 0, train * 0
        kept, passing = (torch.ones(len(each), dtype=torch.bool) for each in (own, train))
        places = draw_places(own, test, train, kept, passing, SEED, self.reference)
        row = compare(features, self.test, self.train, places)["samples"]
        if samples.labels is not None:
            [ours] = places["samples"]
            row |= share_of(logits[ours].argmax(1) == own[ours]).row("conditional_accuracy")
        return {key: value and float(f"{value:.5g}") for key, value in row.items()}


class Rows:
    """The rows that a stage has made, which its checkpoint keeps."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows."""
        return {"made": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after these rows."""
        self.made = state["made"]


def make_rows(
    stage: Stage, out: Path, keys: Sequence[K], row: Callable[[K, Checkpoints], dict[str, Any]], runtime: Runtime
) -> None:
    """Make a row for each key, but those that an interrupted run has made, and write them with their provenance."""
    rows = Rows()
    with Checkpoints(stage.name, stage.fingerprint(runtime.describe()), ALONE, rows=rows) as checkpoints:
        for key in keys[len(rows.made) :]:
            rows.made.append(row(key, checkpoints))
            checkpoints.save()
        stage.write_json(out, {"made_in": runtime.describe(), "rows": rows.made})
        checkpoints.save([out])
