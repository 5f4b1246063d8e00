"""What `ddpm generate` samples, the files that it leaves, and what it keeps when it is cut off."""

import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.diffusion.model import load_model
from ddpm.diffusion.sample import check_finite
from ddpm.diffusion.sets import sample_batch, sample_labels
from ddpm.images.splits import to_uint8
from ddpm.params.sample import SamplerParams
from exact_stages.console import UserError
from exact_stages.files import read_yaml
from exact_stages.params import parse
from tests.cli.generating import ended, generate, sampler, started, tiny_model
from tests.small import CPU, FRUITS
from tests.with_dvc.dvc_clone import wait_for

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"class_conditional": False},
        "conditional": {},
        "guided": {"guides": ("autoguidance",)},
        "distilled": {"class_conditional": False, "timesteps": (19, 12, 5)},
        "fruits": {"data": FRUITS, "counts": (30, 0, 60)},
    }
    return {kind: tiny_model(tmp_path_factory.mktemp(kind), **options) for kind, options in kinds.items()}


def sampled(model: Path, out: Path, *options: object) -> Arrays:
    return dict(np.load(generate(model, out, "--format", "npz", *options) / "images.npz"))


def expected(model: Path, seed: int, numbers: range, **changes: object) -> np.ndarray:
    *_, last = sample_batch(load_model(model), sampler(**changes), seed, numbers, CPU)
    return to_uint8(last.x_prev).permute(0, 2, 3, 1).squeeze(3).numpy()


@pytest.mark.parametrize(
    ("kind", "options", "labels"),
    [("conditional", [], {1, 3, 7}), ("conditional", ["--classes", "7,1"], {7, 1}), ("fruits", [], {0, 2})],
)
def test_pictures_and_arrays_are_those_of_the_classes_and_numbers_that_are_asked_for(
    kind: str, options: list[str], labels: set[int], models: dict[str, Path], tmp_path: Path
) -> None:
    options = ["--count", "20", "--first", "3", "--seed", "2", *options]
    arrays, loaded = sampled(models[kind], tmp_path / "npz", *options), load_model(models[kind])
    names = loaded.card.data.classes
    params = sampler(classes=[names[label] for label in labels])
    assert set(arrays["labels"].tolist()) == labels
    assert arrays["labels"].tolist() == sample_labels(loaded.card, params, 2, range(3, 23)).tolist()
    assert arrays["classes"].tolist() == [*names]
    assert np.array_equal(arrays["images"], expected(models[kind], 2, range(3, 23), **params.model_dump()))
    assert len(np.unique(arrays["images"])) > 50  # not all black, white or grey
    out = generate(models[kind], tmp_path / "png", *options)
    rows = [f"{number:06d}.png,{names[label]}" for number, label in enumerate(arrays["labels"], start=3)]
    assert (out / "labels.csv").read_text().splitlines() == ["image,label", *rows]
    for number, image in enumerate(arrays["images"], start=3):
        with Image.open(out / f"{number:06d}.png") as picture:
            assert np.array_equal(np.asarray(picture), image)


@pytest.mark.parametrize(
    ("kind", "options", "changes"),
    [
        ("plain", "--eta 0", {"eta": 0.0}),
        ("plain", "--no-clip", {"clip": False}),
        ("guided", "--guidance-interval=-1.5,0.25", {"guidance": 1.3, "guidance_interval": (-1.5, 0.25)}),
        ("distilled", "--steps 3", {"sampler": "ddpm", "steps": None}),
    ],
)
def test_options_reach_the_sampler(
    kind: str, options: str, changes: dict[str, object], models: dict[str, Path], tmp_path: Path
) -> None:
    images = sampled(models[kind], tmp_path / "out", "--count", 2, "--seed", 3, *options.split())["images"]
    assert np.array_equal(images, expected(models[kind], 3, range(2), **changes))


def test_the_defaults_are_those_of_the_pipeline() -> None:
    params = read_yaml(Path("params.yaml"))
    if params["data"]["set"] != "data/mnist":
        pytest.skip("params.yaml is for other images than MNIST")
    section = params["sample"]
    values = {key: {**section, **section["scored"]}[key] for key in SamplerParams.model_fields}
    assert parse(SamplerParams, values, "params.yaml") == SamplerParams()


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [
        ("plain", "--count 0", "ddpm generate: --count: "),
        ("plain", "--guidance-interval=2,-4", "options: 1 invalid\n  guidance_interval: "),
        ("plain", "--nonsense 1", "unrecognized arguments: --nonsense 1; see ddpm generate --help"),
        ("conditional", "--classes 7,2", "classes: the model has not seen 2"),
        ("missing", "", "missing.safetensors: no such file"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    kind: str, options: str, key: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(key)}"):
        generate(models.get(kind, Path("missing.safetensors")), tmp_path / "out", *options.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        generate(models["plain"], models["plain"].parent)
    (tmp_path / "empty").mkdir()
    generate(models["plain"], tmp_path / "empty", "--count", 1)


def test_predictions_that_are_not_finite_end_in_one_line(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm.diffusion.sets.to_uint8", lambda _: check_finite(torch.full((1, 1), torch.nan), [7]))
    with pytest.raises(UserError, match=r"^image 7: .*; fetch the model again, or retrain it$"):
        generate(models["plain"], tmp_path / "out", "--count", 1)


@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_after_ctrl_c_what_is_finished_stays_and_the_rest_can_be_sampled(
    image_format: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpm.diffusion.sets.sample_batch_size", lambda *_: 3)
    options, steps = ["--format", image_format, "--seed", 4], iter(range(12))

    def interrupted(*arguments: Any) -> Any:
        for each in sample_batch(*arguments):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            yield each

    with monkeypatch.context() as patched:
        patched.setattr("ddpm.diffusion.sets.sample_batch", interrupted)
        going_on = "interrupted after 6 of 20 images; continue with --first 106 --count 14 and another --out"
        with pytest.raises(UserError, match=f"^{going_on}$"):
            generate(models["conditional"], tmp_path / "out", *options, "--count", 20, "--first", 100)
    generate(models["conditional"], tmp_path / "whole", *options, "--count", 6, "--first", 100)
    found, whole = ({path.name: path for path in (tmp_path / name).iterdir()} for name in ("out", "whole"))
    assert sorted(found) == sorted(whole)
    if image_format == "png":
        assert all(path.read_bytes() == whole[name].read_bytes() for name, path in found.items())
    else:
        np.testing.assert_equal(*(dict(np.load(folder["images.npz"])) for folder in (found, whole)))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_ends_all_workers_in_one_line(workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_WORKERS", workers)
    model = tiny_model(tmp_path, steps=1000)
    process = started("generate", "--model", model, "--out", tmp_path / "out", "--count", 2000, "--steps", 50)
    wait_for((tmp_path / "out/000000.png").exists, process)
    process.send_signal(signal.SIGTERM)
    code, line = ended(process)
    assert code == 1
    assert re.fullmatch(r"error: interrupted after \d+ of 2000 images; continue with --first .*", line)


def test_a_mistake_ends_with_one_line() -> None:
    code, line = ended(started("draw"))
    assert code == 1
    assert re.fullmatch(r"error: .*generate.*balance.*export.*; see ddpm --help", line)
