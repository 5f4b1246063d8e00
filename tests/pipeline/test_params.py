"""Params are read as DVC reads them, and every wrong one is named by `section.key`."""

import copy
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from dvc.utils.serialize import parse_yaml
from pydantic import BaseModel, ValidationError

from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import load_params, parse, read_yaml
from ddpm.sampling.samples import SampleParams
from stages import forward_diffusion, preprocess, train
from stages.check import AllParams

PARAMS = Path(__file__).parents[2] / "params.yaml"
VALUES = read_yaml(PARAMS)
REMOVED = object()
NAN, INF = float("nan"), float("inf")


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The repository's params with some dotted keys set, added or REMOVED."""
    values = copy.deepcopy(VALUES)
    for dotted, value in changes:
        *sections, key = dotted.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[key] = value
        if value is REMOVED:
            del section[key]
    return values


def errors(*changes: tuple[str, Any], model: type[BaseModel] = AllParams) -> dict[str, str]:
    """What is said of each wrong key."""
    try:
        parse(model, changed(*changes), "here")
    except UserError as error:
        first, *lines = str(error).split("\n  ")
        assert first == f"here: {len(lines)} invalid"
        return dict(line.split(": ", 1) for line in lines)
    return {}


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted key and the annotation of every parameter."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation


def kinds(annotation: Any) -> set[type]:
    """The types of YAML that an annotation takes; the words and numbers of a Literal count as none."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return set().union(*map(kinds, inner))
    if origin is Annotated:
        return kinds(inner[0])
    return {list} if origin is tuple else set() if origin is Literal else {annotation}


FIELDS = dict(fields(AllParams))


@pytest.mark.parametrize("key", FIELDS)
def test_what_is_not_of_its_type_is_refused_for_every_key(key: str) -> None:
    known = kinds(FIELDS[key])
    if float in known or key in ("data.size", "data.image_size"):  # one number stands for both sides
        known |= {int}
    for value in (True, 7, 1.5, "no such word", None):
        if type(value) not in known:
            assert [*errors((key, value))] == [key], value
    for value in ([[]], {}, {"a": 1}):  # type: ignore[assignment]
        assert all(name.startswith(key) for name in errors((key, value))), value
        assert errors((key, value)), value
    assert "missing" in errors((key, REMOVED))[key]
    section = key.rpartition(".")[0]
    assert "unknown key" in errors((f"{section}.typo", 1))[f"{section}.typo"]


WRONG: dict[str, list[Any]] = {  # keys whose last part is a number are those of an item
    "data.set": [""],
    "data.background": ["witte"],
    "data.test": [0, 0.6],
    "download.sets.0": [["cifar"]],
    "schedule.timesteps": [0, 100_001],
    "schedule.beta_start": [0, -INF],
    "classifier.images": [0],
    "model.channels": [[], [8] * 6],
    "model.channels.1": [[8, 0], [64, "128"]],
    "model.time_embed_dim": [0, 63],
    "model.patch_size": [3, True],
    "model.block": ["resnet"],
    "train.epochs": [0, 2e6, NAN],
    "train.lr": [0, 2, NAN, INF, "0.002"],
    "train.ema_decay": [1, -0.1],
    "train.log_every": [0, 8.0],
    "train.seed": [-1, 2**63],
    "distill.steps.0": [[0], [65]],
    "sample.gallery.guidance_interval": [[2, -4], [0, 1, 2]],
    "sample.gallery.guidance_interval.1": [[2, 101], [0]],
    "sample.gallery.count": [1],
    "filter.least_probability": [1],
    "likelihood.images": [1],
    "classification_accuracy_score.count": [1],
}


@pytest.mark.parametrize(("where", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_what_is_out_of_range_is_refused(where: str, value: Any) -> None:
    key = re.sub(r"\.\d$", "", where)
    assert [*errors((key, value))] == [where]


def test_what_two_keys_of_a_section_contradict_is_refused() -> None:
    assert [*errors(("schedule.beta_end", 1e-9))] == ["schedule"]
    assert "log_snr_uniform" in errors(("train.log_snr_center", None))["train"]


@pytest.mark.parametrize(
    "changes",
    [
        [("schedule.timesteps", 1), ("schedule.beta_start", 0.02), ("schedule.beta_end", 0.02)],
        [("train.images", None), ("train.epochs", 1e-5), ("train.lr", 1), ("train.validation", 0)],
        [("train.classes", ["T-shirt", "010", 7]), ("train.ema_decay", 0)],
        [("train.log_snr_center", None), ("train.log_snr_uniform", 0)],
        [("model.channels", [8]), ("model.patch_size", 4), ("model.class_conditional", False)],
        [("sample.gallery.guidance_interval", [-100, 100]), ("sample.gallery.steps", None), ("sample.gallery.eta", 0)],
    ],
)
def test_the_edges_of_the_ranges_are_valid(changes: list[tuple[str, Any]]) -> None:
    assert not errors(*changes)


def test_all_errors_are_reported_together() -> None:
    wrong = [("download.sets", ["cifar"]), ("model.block", 5), ("train.lr", "fast"), ("train.epochs", REMOVED)]
    assert [*errors(*wrong, ("sample.population.clip", 0), ("extra", 1))] == [
        "download.sets.0",
        "model.block",
        "train.lr",
        "train.epochs",
        "sample.population.clip",
        "extra",
    ]


def test_a_stage_minds_its_own_sections_alone() -> None:
    elsewhere = [("likelihood.images", 0), ("download", REMOVED), ("other", 1)]
    assert not errors(*elsewhere, model=train.Params)
    assert [*errors(("data", REMOVED), model=preprocess.Params)] == ["data"]
    wrong = [("schedule.timesteps", 0), ("schedule.beta_start", 0)]
    assert [*errors(*wrong, model=forward_diffusion.Params)] == [key for key, _ in wrong]


def test_a_dotted_section_is_loaded_and_named_in_full(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("sample: {gallery: {eta: 2}}\n")
    assert load_params(SampleParams, "sample.gallery", PARAMS).count == VALUES["sample"]["gallery"]["count"]
    with pytest.raises(UserError, match=r"\n  sample\.gallery\.eta: "):
        load_params(SampleParams, "sample.gallery", path)
    for missing in ("sample.population", "train"):
        with pytest.raises(UserError, match=f": {missing}: missing"):
            load_params(SampleParams, missing, path)


def test_values_arrive_typed_and_immutable() -> None:
    changes = (("train.classes", [3, "010"]), ("sample.gallery.classes", "all"), ("model.channels", [4, 8]))
    params = parse(AllParams, changed(*changes), "here")
    assert (params.train.classes, params.sample.gallery.classes, params.model.channels) == ((3, "010"), (), (4, 8))
    with pytest.raises(ValidationError, match="frozen"):
        params.train.epochs = 1  # type: ignore[misc]


SCALARS = [
    "true",
    "null",
    "~",
    "010",
    "0o12",
    "1_0",
    "1e-05",
    "1E-5",
    ".inf",
    "yes",
    "no",
    "on",
    "12:30",
    "1.2.3",
    "1e",
]


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_those_of_dvc(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"base: &base {{a: {text}, b: 1}}\nmine: {{<<: *base, b: 2}}\n")
    dvc = parse_yaml(path.read_text(), "params.yaml")
    assert repr(dict(read_yaml(path)["mine"])) == repr(dict(dvc["mine"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"train: [1\n", "line 2"),
        (b"train:\n\tepochs: 1\n", "line 2"),
        (b"train: \xff\n", "UTF-8"),
        (b"train: !!python/object:os.system x\n", "line 1"),
        (b"x: 2024-13-45\n", "YAML"),
        (b"a: 1\nb: \0\n", "YAML"),
        (b"train: {}\ntrain: {}\n", 'line 2: found duplicate key "train"'),
        (b"a:\n<<<<<<< HEAD\n  b: 1\n=======\n  b: 2\n>>>>>>> other\n", "line 2: a merge conflict"),
    ],
)
def test_a_poor_file_ends_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_of_no_sections_are_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match=r"params\.yaml: no such file"):
        read_yaml(path)
    for content in ("", "- 1\n", "train\n"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"params\.yaml: 1 invalid"):
            load_params(AllParams, path=path)
