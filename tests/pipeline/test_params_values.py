import copy
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import load_params
from scripts import check_params
from scripts.check_params import AllParams, spanning_errors

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
VALUES = YAML(typ="safe", pure=True).load(TEXT)
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
        if value is REMOVED:
            del section[key]
        else:
            section[key] = value
    return values


def written(folder: Path, values: Any) -> Path:
    path = folder / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    return path


def complaint(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What scripts/check_params.py says of the file."""
    monkeypatch.setattr(sys, "argv", ["check_params", str(path)])
    with pytest.raises(UserError) as caught:
        check_params.main()
    return str(caught.value)


WRONG = [
    # Missing and unknown keys and sections.
    ("download", REMOVED, "download", "missing; add it"),
    ("evaluate", REMOVED, "evaluate", "missing; add it"),
    ("sample", REMOVED, "sample", "missing; add it"),
    ("sample.gallery", REMOVED, "sample.gallery", "missing; add it"),
    ("sample.population.eta", REMOVED, "sample.population.eta", "missing; add it"),
    ("train.epochs", REMOVED, "train.epochs", "missing; add it"),
    ("schedule.beta_end", REMOVED, "schedule.beta_end", "missing; add it"),
    ("model.attention", REMOVED, "model.attention", "missing; add it"),
    ("model.class_conditional", REMOVED, "model.class_conditional", "missing; add it"),
    ("train.log_snr_center", REMOVED, "train.log_snr_center", "missing; add it"),
    ("train.label_dropout", REMOVED, "train.label_dropout", "missing; add it"),
    ("train.early", REMOVED, "train.early", "missing; add it"),
    ("sample.gallery.classes", REMOVED, "sample.gallery.classes", "missing; add it"),
    ("sample.gallery.guidance", REMOVED, "sample.gallery.guidance", "missing; add it"),
    ("sample.population.guide", REMOVED, "sample.population.guide", "missing; add it"),
    ("sample.population.guidance_interval", REMOVED, "sample.population.guidance_interval", "missing; add it"),
    ("evaluation", {}, "evaluation", "unknown key; remove it or mend its spelling"),
    ("train.epoch", 3, "train.epoch", "unknown key; remove it or mend its spelling"),
    ("data.size", 28, "data.size", "data.image_size"),  # its name until DVC was found to pass it over
    ("sample.galery", {}, "sample.galery", "unknown key; remove it or mend its spelling"),
    ("sample.gallery.step", 50, "sample.gallery.step", "unknown key; remove it or mend its spelling"),
    ("classifier.weight_decay", 0.1, "classifier.weight_decay", "unknown key; remove it or mend its spelling"),
    ("download", None, "download", "got null"),
    ("train", "fast", "train", 'got "fast"'),
    ("schedule", [1000], "schedule", "got [1000]"),
    # Wrong types.
    ("train.lr", "0.002", "train.lr", 'valid number, got "0.002"'),
    ("train.lr", "1e-3", "train.lr", 'valid number, got "1e-3"'),
    ("train.lr", None, "train.lr", "valid number, got null"),
    ("train.lr", True, "train.lr", "valid number, got true"),
    ("train.lr", [0.002], "train.lr", "valid number, got [0.002]"),
    ("train.epochs", "8", "train.epochs", 'valid number, got "8"'),
    ("train.epochs", True, "train.epochs", "valid number, got true"),
    ("train.log_every", 8.0, "train.log_every", "valid integer, got 8.0"),
    ("train.log_every", 1.5, "train.log_every", "valid integer, got 1.5"),
    ("train.log_every", True, "train.log_every", "valid integer, got true"),
    ("train.seed", "0", "train.seed", 'valid integer, got "0"'),
    ("schedule.timesteps", "1000", "schedule.timesteps", 'valid integer, got "1000"'),
    ("classifier.channels", [32], "classifier.channels", "valid integer, got [32]"),
    ("evaluate.confidence", "high", "evaluate.confidence", 'valid number, got "high"'),
    ("evaluate.confidence", {}, "evaluate.confidence", "valid number"),
    ("data.image_size", "32", "data.image_size", 'got "32"'),
    ("data.colour", "yes", "data.colour", 'valid boolean, got "yes"'),
    ("train.flip", "yes", "train.flip", 'valid boolean, got "yes"'),
    ("train.images", 1.5, "train.images", "valid integer, got 1.5"),
    ("train.label_dropout", "0.1", "train.label_dropout", 'valid number, got "0.1"'),
    ("train.early", None, "train.early", "valid number, got null"),
    ("train.early", False, "train.early", "valid number, got false"),
    ("sample.gallery.guidance", "1.3", "sample.gallery.guidance", 'valid number, got "1.3"'),
    ("sample.population.guidance", None, "sample.population.guidance", "valid number, got null"),
    ("sample.gallery.guidance_interval", 2.0, "sample.gallery.guidance_interval", "got 2.0"),
    ("sample.gallery.guidance_interval", [0, "2"], "sample.gallery.guidance_interval.1", 'valid number, got "2"'),
    ("sample.gallery.guidance_interval", [0], "sample.gallery.guidance_interval.1", "missing; add it"),
    ("sample.gallery.guidance_interval", [0, 1, 2], "sample.gallery.guidance_interval", "at most 2 items"),
    ("model.channels", 64, "model.channels", "got 64"),
    ("model.channels", "64", "model.channels", 'got "64"'),
    ("model.channels", [64, "128"], "model.channels.1", 'valid integer, got "128"'),
    ("model.attention", 1, "model.attention", "valid boolean, got 1"),
    ("model.attention", "yes", "model.attention", 'valid boolean, got "yes"'),  # YAML 1.2: yes is a word
    ("model.class_conditional", 1, "model.class_conditional", "valid boolean, got 1"),
    ("model.class_conditional", "yes", "model.class_conditional", 'valid boolean, got "yes"'),
    ("model.class_conditional", [7], "model.class_conditional", "valid boolean, got [7]"),
    ("model.patch_size", "2", "model.patch_size", '1, 2 or 4, got "2"'),
    ("sample.population.clip", None, "sample.population.clip", "valid boolean, got null"),
    ("sample.gallery.steps", "all", "sample.gallery.steps", 'valid integer, got "all"'),
    ("forward_diffusion.timesteps", 5, "forward_diffusion.timesteps", "got 5"),
    ("forward_diffusion.timesteps", [0, 1.5], "forward_diffusion.timesteps.1", "valid integer, got 1.5"),
    # Not a number, infinity.
    ("train.lr", NAN, "train.lr", "finite number, got NaN"),
    ("train.lr", INF, "train.lr", "finite number, got Infinity"),
    ("schedule.beta_start", -INF, "schedule.beta_start", "finite number, got -Infinity"),
    ("sample.gallery.eta", NAN, "sample.gallery.eta", "finite number, got NaN"),
    ("evaluate.confidence", NAN, "evaluate.confidence", "finite number, got NaN"),
    ("train.log_snr_center", NAN, "train.log_snr_center", "finite number, got NaN"),
    ("train.log_snr_center", -INF, "train.log_snr_center", "finite number, got -Infinity"),
    ("train.early", NAN, "train.early", "finite number, got NaN"),
    ("sample.gallery.guidance", INF, "sample.gallery.guidance", "finite number, got Infinity"),
    ("sample.gallery.guidance_interval", [-INF, 2], "sample.gallery.guidance_interval.0", "finite number, got -Inf"),
    ("train.epochs", NAN, "train.epochs", "finite number, got NaN"),
    ("train.epochs", INF, "train.epochs", "finite number, got Infinity"),
    ("train.log_every", NAN, "train.log_every", "valid integer, got NaN"),
    ("train.log_every", INF, "train.log_every", "valid integer, got Infinity"),
    # Out of range.
    ("schedule.timesteps", 0, "schedule.timesteps", "greater than or equal to 1, got 0"),
    ("schedule.timesteps", -5, "schedule.timesteps", "greater than or equal to 1, got -5"),
    ("schedule.timesteps", 100_001, "schedule.timesteps", "less than or equal to 100000, got 100001"),
    ("schedule.beta_start", 0, "schedule.beta_start", "greater than 0, got 0"),
    ("schedule.beta_end", 1, "schedule.beta_end", "less than 1, got 1"),
    ("schedule.beta_end", 1e-9, "schedule", "beta_end must be at least beta_start"),
    ("data.set", "", "data.set", 'at least 1 character, got ""'),
    (
        "data.image_size",
        0,
        "data.image_size",
        "must be null, or pixels such as 32 or [48, 32] (height, width), at most 1024, got 0",
    ),
    ("data.image_size", 1025, "data.image_size", "at most 1024, got 1025"),
    ("data.image_size", [32], "data.image_size", "or [48, 32] (height, width), at most 1024, got [32]"),
    ("data.image_size", [32, 0], "data.image_size", "at most 1024, got [32, 0]"),
    ("data.image_size", True, "data.image_size", "at most 1024, got true"),
    ("data.test", 0, "data.test", "greater than 0, got 0"),
    ("data.test", 0.6, "data.test", "less than or equal to 0.5, got 0.6"),
    ("forward_diffusion.images", 0, "forward_diffusion.images", "greater than or equal to 1, got 0"),
    ("forward_diffusion.images", 21, "forward_diffusion.images", "less than or equal to 20, got 21"),
    ("forward_diffusion.timesteps", [], "forward_diffusion.timesteps", "at least 1 item"),
    ("forward_diffusion.timesteps", [0] * 21, "forward_diffusion.timesteps", "at most 20 items"),
    ("forward_diffusion.timesteps", [0, -1], "forward_diffusion.timesteps.1", "greater than or equal to 0, got -1"),
    ("forward_diffusion.seed", -1, "forward_diffusion.seed", "greater than or equal to 0, got -1"),
    ("classifier.channels", 0, "classifier.channels", "greater than or equal to 1, got 0"),
    ("classifier.channels", 1025, "classifier.channels", "less than or equal to 1024, got 1025"),
    ("classifier.images", 0, "classifier.images", "greater than or equal to 1, got 0"),
    ("classifier.epochs", 0, "classifier.epochs", "greater than or equal to 1, got 0"),
    ("classifier.batch_size", 1, "classifier.batch_size", "greater than or equal to 2, got 1"),
    ("classifier.lr", 0, "classifier.lr", "greater than 0, got 0"),
    ("classifier.shift", 5, "classifier.shift", "less than or equal to 4, got 5"),
    ("classifier.shift", -1, "classifier.shift", "greater than or equal to 0, got -1"),
    ("classifier.seed", -1, "classifier.seed", "greater than or equal to 0, got -1"),
    ("model.channels", [], "model.channels", "at least 1 item"),
    ("model.channels", [8] * 6, "model.channels", "at most 5 items"),
    ("model.channels", [8, 0], "model.channels.1", "greater than or equal to 1, got 0"),
    ("model.channels", [8, 2049], "model.channels.1", "less than or equal to 2048, got 2049"),
    ("model.time_embed_dim", 63, "model.time_embed_dim", "multiple of 2, got 63"),
    ("model.time_embed_dim", 1026, "model.time_embed_dim", "less than or equal to 1024, got 1026"),
    ("model.time_embed_dim", 0, "model.time_embed_dim", "greater than or equal to 2, got 0"),
    ("model.patch_size", 3, "model.patch_size", "1, 2 or 4, got 3"),
    ("train.epochs", 0, "train.epochs", "greater than 0, got 0"),
    ("train.epochs", -0.5, "train.epochs", "greater than 0, got -0.5"),
    ("train.epochs", 2e6, "train.epochs", "less than or equal to 1000000, got 2000000.0"),
    ("train.images", 0, "train.images", "greater than or equal to 1, got 0"),
    ("train.start", "", "train.start", 'at least 1 character, got ""'),
    ("train.batch_size", 1_000_001, "train.batch_size", "less than or equal to 1000000, got 1000001"),
    ("train.batch_size", 0, "train.batch_size", "greater than or equal to 1, got 0"),
    ("train.lr", 0, "train.lr", "greater than 0, got 0"),
    ("train.lr", -0.1, "train.lr", "greater than 0, got -0.1"),
    ("train.lr", 2, "train.lr", "less than or equal to 1, got 2"),
    ("train.warmup_steps", -1, "train.warmup_steps", "greater than or equal to 0, got -1"),
    ("train.ema_decay", 1, "train.ema_decay", "less than 1, got 1"),
    ("train.ema_decay", -0.1, "train.ema_decay", "greater than or equal to 0, got -0.1"),
    ("train.validation", -1, "train.validation", "greater than or equal to 0, got -1"),
    ("train.label_dropout", 1, "train.label_dropout", "less than 1, got 1"),
    ("train.label_dropout", -0.1, "train.label_dropout", "greater than or equal to 0, got -0.1"),
    ("train.early", 1, "train.early", "less than 1, got 1"),
    ("train.early", -0.1, "train.early", "greater than or equal to 0, got -0.1"),
    ("train.log_every", 0, "train.log_every", "greater than or equal to 1, got 0"),
    ("train.seed", -1, "train.seed", "greater than or equal to 0, got -1"),
    ("sample.gallery.steps", 0, "sample.gallery.steps", "greater than or equal to 1, got 0"),
    ("filter.least_probability", 1, "filter.least_probability", "less than 1, got 1"),
    ("filter.least_probability", -0.1, "filter.least_probability", "greater than or equal to 0, got -0.1"),
    ("sample.population.eta", 2, "sample.population.eta", "less than or equal to 1, got 2"),
    ("sample.population.eta", -0.5, "sample.population.eta", "greater than or equal to 0, got -0.5"),
    ("sample.gallery.guidance", -0.5, "sample.gallery.guidance", "greater than or equal to 0, got -0.5"),
    ("sample.gallery.guidance", 1001, "sample.gallery.guidance", "less than or equal to 1000, got 1001"),
    (
        "sample.gallery.guidance_interval",
        [2, -4],
        "sample.gallery.guidance_interval",
        "in ascending order, got [2",
    ),
    ("sample.gallery.guidance_interval", [-101, 2], "sample.gallery.guidance_interval.0", "equal to -100, got -101"),
    ("sample.gallery.guidance_interval", [2, 101], "sample.gallery.guidance_interval.1", "equal to 100, got 101"),
    ("sample.gallery.count", 1, "sample.gallery.count", "greater than or equal to 2, got 1"),
    ("sample.gallery.keep_every", -1, "sample.gallery.keep_every", "greater than or equal to 0, got -1"),
    ("sample.population.seed", -1, "sample.population.seed", "greater than or equal to 0, got -1"),
    ("evaluate.confidence", 1, "evaluate.confidence", "less than 1, got 1"),
    ("evaluate.confidence", 0, "evaluate.confidence", "greater than 0, got 0"),
    ("evaluate.seed", -1, "evaluate.seed", "greater than or equal to 0, got -1"),
    ("likelihood.images", 1, "likelihood.images", "greater than or equal to 2, got 1"),
    ("likelihood.terms", 0, "likelihood.terms", "greater than or equal to 1, got 0"),
    (
        "classification_accuracy_score.count",
        1,
        "classification_accuracy_score.count",
        "greater than or equal to 2, got 1",
    ),
    ("evaluate.seed", 2**63, "evaluate.seed", "less than 9223372036854775808, got 9223372036854775808"),
    # Unknown choices.
    ("download.sets", ["cifar"], "download.sets.0", "'mnist' or 'fashion_mnist', got \"cifar\""),
    ("download.sets", ["mnist", "MNIST"], "download.sets.1", "'mnist' or 'fashion_mnist', got \"MNIST\""),
    ("data.fit", "cover", "data.fit", "'crop', 'pad' or 'stretch', got \"cover\""),
    ("data.background", "witte", "data.background", 'a colour such as white, black or #a0b0c0, got "witte"'),
    ("model.block", "resnet", "model.block", "'double_conv' or 'residual', got \"resnet\""),
    ("model.prediction", "x_start", "model.prediction", "'noise' or 'v', got \"x_start\""),
    ("train.loss", "huber", "train.loss", 'got "huber"'),
    ("model.bottleneck_blocks", 0, "model.bottleneck_blocks", "greater than or equal to 1, got 0"),
    ("model.bottleneck_blocks", 17, "model.bottleneck_blocks", "less than or equal to 16, got 17"),
    ("train.optimizer", "sgd", "train.optimizer", "'adam' or 'muon', got \"sgd\""),
    ("train.lr_decay", "linear", "train.lr_decay", "'none' or 'cosine', got \"linear\""),
    ("train.lr_decay", None, "train.lr_decay", "'none' or 'cosine', got null"),
    ("train.timestep_sampling", "random", "train.timestep_sampling", "'uniform' or 'stratified', got \"random\""),
    ("train.log_snr_center", "linear", "train.log_snr_center", 'valid number, got "linear"'),
    ("train.log_snr_center", True, "train.log_snr_center", "valid number, got true"),
    ("train.log_snr_center", -21, "train.log_snr_center", "greater than or equal to -20, got -21"),
    ("train.log_snr_center", 20.5, "train.log_snr_center", "less than or equal to 20, got 20.5"),
    ("sample.gallery.sampler", "plms", "sample.gallery.sampler", "'ddpm', 'ddim' or 'dpmpp_2m', got \"plms\""),
    ("sample.population.variance", "learned", "sample.population.variance", "'posterior' or 'beta', got \"learned\""),
    ("sample.gallery.guide", "late", "sample.gallery.guide", "'early' or 'unlabelled', got \"late\""),
    ("sample.population.guide", None, "sample.population.guide", "'early' or 'unlabelled', got null"),
    # Classes.
    ("train.classes", "some", "train.classes", 'must be all, or a list of names of classes such as [7], got "some"'),
    ("train.classes", 7, "train.classes", "must be all, or a list of names of classes such as [7], got 7"),
    ("train.classes", None, "train.classes", "or a list of names of classes such as [7], got null"),
    ("train.classes", [], "train.classes", "or a list of names of classes such as [7], got []"),
    ("train.classes", [7, True], "train.classes.1", "is no name to YAML; put it in quotes, got true"),
    ("train.classes", [None, "8"], "train.classes.0", "is no name to YAML; put it in quotes, got null"),
    ("sample.gallery.classes", "7", "sample.gallery.classes", 'list of names of classes such as [7], got "7"'),
    ("sample.gallery.classes", 7, "sample.gallery.classes", "or a list of names of classes such as [7], got 7"),
    ("sample.gallery.classes", None, "sample.gallery.classes", "or a list of names of classes such as [7], got null"),
    ("sample.gallery.classes", False, "sample.gallery.classes", "or a list of names of classes such as [7], got false"),
    ("sample.population.classes", [], "sample.population.classes", "a list of names of classes such as [7], got []"),
    ("sample.population.classes", [1.5], "sample.population.classes.0", "put it in quotes, got 1.5"),
    # Between sections.
    ("forward_diffusion.timesteps", [0, 10**6], "forward_diffusion.timesteps", "[1000000] must be below schedule.time"),
    ("sample.gallery.steps", 1001, "sample.gallery.steps", "1001 must be at most schedule.timesteps"),
    ("sample.population.steps", 1001, "sample.population.steps", "1001 must be at most schedule.timesteps"),
    ("sample.gallery.keep_every", 0, "sample.gallery.keep_every", "set it to 1 or more"),
    ("train.validation", 0.6, "train.validation", "less than or equal to 0.5, got 0.6"),
    ("data.set", "data/fashion_mnist", "data.set", "is made only when download.sets has fashion_mnist"),
    ("train.start", "models/ddpm.safetensors", "train.start", "is what training makes; copy it to data/"),
    ("sample.population.count", 5, "sample.population.count", "the scores need more than 5 images"),
]


@pytest.mark.parametrize(("dotted", "value", "where", "what"), WRONG)
def test_each_wrong_value_is_named(
    dotted: str, value: Any, where: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, changed((dotted, value)))
    first, *lines = complaint(path, monkeypatch).split("\n")
    assert first == f"{path}: 1 invalid"
    (line,) = lines
    assert line.startswith(f"  {where}: ")
    assert what in line


@pytest.mark.parametrize(
    ("dotted", "value"),
    [
        ("train.classes", [1.5]),
        ("sample.gallery.classes", [False]),
        ("forward_diffusion.timesteps", [-1]),
        ("model.channels", [0]),
    ],
)
def test_one_wrong_item_alone_is_one_error(
    dotted: str, value: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, changed((dotted, value)))
    assert complaint(path, monkeypatch).startswith(f"{path}: 1 invalid\n  {dotted}.0: ")


def test_a_truth_value_is_no_patch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "model.patch_size: " in complaint(written(tmp_path, changed(("model.patch_size", True))), monkeypatch)


@pytest.mark.parametrize("section", ["train", "classifier"])
def test_a_seed_that_torch_cannot_take(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, changed((f"{section}.seed", 2**64)))
    assert f"{section}.seed: " in complaint(path, monkeypatch)


def test_the_repository_has_valid_params() -> None:
    assert spanning_errors(load_params(AllParams, path=REPOSITORY / "params.yaml")) == []


def test_check_params_is_silent_on_valid_params(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads params.yaml in the current folder by default."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["check_params"])
    check_params.main()


def test_several_errors_are_reported_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = changed(
        ("download.sets", ["cifar"]),
        ("model.block", 5),
        ("train.lr", "fast"),
        ("train.epochs", REMOVED),
        ("sample.gallery.steps", -1),
        ("sample.population.clip", 0),
        ("extra", 1),
    )
    path = written(tmp_path, wrong)
    first, *lines = complaint(path, monkeypatch).split("\n")
    assert first == f"{path}: 7 invalid"
    assert [line.split(": ")[0] for line in lines] == [
        "  download.sets.0",
        "  model.block",
        "  train.lr",
        "  train.epochs",
        "  sample.gallery.steps",
        "  sample.population.clip",
        "  extra",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        [("schedule.timesteps", 1), ("forward_diffusion.timesteps", [0]), ("sample.population.steps", 1)],
        [("schedule.beta_start", 0.02), ("schedule.beta_end", 0.02)],
        [("train.batch_size", 1_000_000), ("train.validation", 0.5)],
        [("classifier.batch_size", 1_000_000), ("classifier.images", 10**9)],
        [("data.image_size", 1), ("data.colour", True), ("data.fit", "pad"), ("data.background", "#a0b0c0")],
        [("data.image_size", [1024, 1]), ("data.test", 0.5), ("data.set", "data/of my own")],
        [("train.images", None), ("train.flip", True), ("train.start", "models/before.safetensors")],
        [("train.classes", [7])],
        [("train.classes", ["T-shirt", "010", 7]), ("sample.gallery.classes", ["010"])],
        [("train.classes", ["7"]), ("sample.gallery.classes", [7])],
        [("train.classes", [0, 9]), ("sample.gallery.classes", [9]), ("sample.population.classes", [0])],
        [("model.class_conditional", False), ("train.log_snr_center", None)],
        [("train.log_snr_center", 20)],
        [("train.log_snr_center", -20)],
        [("train.epochs", 1e-5)],
        [("train.epochs", 1e6)],
        [("train.ema_decay", 0)],
        [("train.lr", 1)],
        [("train.validation", 0), ("train.warmup_steps", 0)],
        [("train.label_dropout", 0.999), ("train.early", 1e-9), ("sample.gallery.guide", "unlabelled")],
        [("train.early", 0.999), ("sample.gallery.guidance", 0), ("sample.population.guidance", 1000)],
        [("sample.gallery.guidance_interval", [-100, 100]), ("sample.population.guidance_interval", [1, 1])],
        [("model.channels", [8, 8, 8]), ("model.patch_size", 1)],
        [("model.channels", [8]), ("model.patch_size", 4)],
        [("sample.population.steps", None), ("sample.population.eta", 0)],
    ],
)
def test_the_edges_of_the_ranges_are_valid(changes: list[tuple[str, Any]], tmp_path: Path) -> None:
    changes = [("sample.gallery.steps", None), *changes]
    assert spanning_errors(load_params(AllParams, path=written(tmp_path, changed(*changes)))) == []
