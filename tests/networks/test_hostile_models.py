"""Model files that cannot be: each is refused with one line that names the file and what is wrong with it."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from ddpm.classifier.model import (
    Classifier,
    ClassifierParams,
    features_and_logits,
    load_classifier,
    save_classifier,
)
from ddpm.compute.device import Runtime
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.checkpoint import load_model, save_model
from ddpm.networks.unet import UNet
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from ddpm.sampling.drawing import draw_batch, noise_predictor
from tests.networks.random_weights import randomised
from tests.sampling.walks import sampler as walk
from tests.small import DIGITS, images, unet_params

CPU = Runtime(torch.device("cpu"), torch.float32)
CLASSIFIER = ClassifierParams(channels=1, images=1, epochs=1, batch_size=2, lr=0.1, shift=0, seed=0)


def model_file(folder: Path, **changes: object) -> Path:
    path = folder / "model.safetensors"
    schedule = NoiseSchedule(ScheduleParams(timesteps=10, beta_start=0.01, beta_end=0.5))
    network = randomised(UNet(unet_params(**{"prediction": "v", **changes}), schedule, DIGITS))
    save_model(path, network, schedule, (0, 5, *[0] * 8))
    return path


def classifier_file(folder: Path) -> Path:
    path = folder / "classifier.safetensors"
    save_classifier(path, Classifier(CLASSIFIER, DIGITS))
    return path


FILES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object], str]] = {
    "model": (model_file, load_model, "bottleneck.0.conv1.weight"),
    "classifier": (classifier_file, load_classifier, "levels.0.0.weight"),
}


def refusal(load: Callable[[Path], object], path: Path) -> str:
    """What is said of the file, in one line that begins with its name."""
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < len(str(path)) + 500
    return message.removeprefix(f"{path}: ")


def change(path: Path, weights: dict[str, Tensor]) -> None:
    arrays, metadata = load_arrays(path)
    assert weights.keys() <= arrays.keys()
    save_arrays(path, {**arrays, **weights}, metadata)


def change_metadata(path: Path, text: str) -> None:
    """Put any text in the place of the metadata."""
    path.write_bytes(save(load_arrays(path)[0], {"ddpm": text}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", FILES)
def test_a_weight_that_is_not_finite_is_refused_by_name(kind: str, value: float, tmp_path: Path) -> None:
    write, load, name = FILES[kind]
    path = write(tmp_path)
    weight = load_arrays(path)[0][name]
    weight.view(-1)[3] = value
    change(path, {name: weight})
    assert refusal(load, path) == f"{name} is not finite everywhere; fetch the file again, or train it anew"


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8, torch.bool], ids=str
)
@pytest.mark.parametrize("kind", FILES)
def test_weights_of_another_type_are_refused_by_name(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    write, load, name = FILES[kind]
    path = write(tmp_path)
    change(path, {name: load_arrays(path)[0][name].to(dtype)})
    message = refusal(load, path)
    assert message.startswith("the weights do not fit the network that the file describes: ")
    short = str(dtype).removeprefix("torch.")
    shape = list(load_arrays(path)[0][name].shape)
    assert message.endswith(f": {name} is {short} {shape} and not float32 {shape}")


def test_complex_weights_are_refused(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    arrays, metadata = load_arrays(path)
    arrays["head.2.bias"] = arrays["head.2.bias"].to(torch.complex64)
    path.write_bytes(save(arrays, {"ddpm": json.dumps(metadata)}))
    assert "complex64" in refusal(load_model, path)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("prediction", ["noise", "v"])
@pytest.mark.parametrize("which", ["all", "head"])  # of the head alone the predictions are infinite, and not NaN
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_weights_so_large_that_the_predictions_are_infinite_end_the_drawing(
    prediction: str, clip: bool, sampler: str, which: str, precision: torch.dtype, tmp_path: Path
) -> None:
    path = model_file(tmp_path, prediction=prediction)
    arrays = load_arrays(path)[0]
    changed = arrays if which == "all" else {name: arrays[name] for name in ("head.0.bias", "head.2.weight")}
    change(path, {name: torch.full_like(weight, 3e38) for name, weight in changed.items()})
    drawn = draw_batch(
        load_model(path),
        walk(sampler, steps=4, clip=clip),
        0,
        range(7, 9),
        Runtime(CPU.device, precision),
    )
    with pytest.raises(UserError) as caught:
        list(drawn)
    assert str(caught.value) == "image 7: the model's predictions are not finite; fetch it again, or train it anew"


def test_the_image_that_is_not_finite_is_named_and_the_others_are_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(model_file(tmp_path))
    plain = loaded.model.forward

    def spoilt(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        predicted = plain(x_t, t, labels)
        if t[0] == 9:
            predicted[2, 0, 5, 5] = torch.inf  # at the first step alone
        return predicted

    monkeypatch.setattr(loaded.model, "forward", spoilt)
    steps = draw_batch(loaded, walk("ddim", eta=0.0, clip=True), 0, [4, 5, 6, 7], CPU)
    seen = []
    with pytest.raises(UserError, match=r"^image 6: "):
        seen.extend(steps)
    assert len(seen) == 10
    assert seen[-1].x_prev.isfinite().flatten(1).all(1).tolist() == [True, True, False, True]


def test_finite_predictions_reach_the_sampler_as_they_are(tmp_path: Path) -> None:
    loaded = load_model(model_file(tmp_path))
    x_t, labels = torch.randn(3, 1, 28, 28), torch.tensor([1, 1, 1])
    with torch.inference_mode():
        predicted = noise_predictor(loaded, labels, walk(), CPU)(x_t, 4)
        assert torch.equal(predicted, loaded.model(x_t, torch.tensor([4, 4, 4]), labels))


def test_a_classifier_whose_features_are_infinite_is_refused(tmp_path: Path) -> None:
    path = classifier_file(tmp_path)
    arrays = load_arrays(path)[0]
    change(path, {name: torch.full_like(arrays[name], 3e38) for name in ("levels.2.1.weight", "levels.2.4.weight")})
    with pytest.raises(UserError, match=r"^classifier: its features of images are not finite; [^\n]*$"):
        features_and_logits(load_classifier(path), images(2), CPU.device)


NESTED = "[" * 3000 + "]" * 3000


@pytest.mark.parametrize(
    "text",
    [
        NESTED,
        '{"card": ' + NESTED + "}",
        '{"card": {"model": ' + NESTED + "}}",
        '{"a":' * 3000 + "0" + "}" * 3000,
        '{"card": {"class_counts": ' + "9" * 5000 + "}}",
        '{"card": NaN}',
        '{"card": "\\ud800"}',
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize("kind", FILES)
def test_metadata_that_is_no_card_is_refused(kind: str, text: str, tmp_path: Path) -> None:
    write, load, _ = FILES[kind]
    path = write(tmp_path)
    change_metadata(path, text.replace("card", "classifier") if kind == "classifier" else text)
    assert refusal(load, path)


def test_metadata_of_fifty_megabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    card = load_arrays(path)[1]
    change_metadata(path, json.dumps({**card, "note": "x" * 50_000_000}))
    message = refusal(load_model, path)
    assert message.startswith("not a file of this pipeline, or damaged (its header claims to have 50,0")
    assert message.endswith(" bytes, more than 1,048,576)")


def card(path: Path, **changes: Any) -> None:
    arrays, metadata = load_arrays(path)
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (metadata["card"][section] if section else metadata["card"])[name] = value
    save_arrays(path, arrays, metadata)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([0] * 10, "class_counts: no class has an image, got "),
        ([0, 10**400, *[0] * 8], "class_counts.1: input should be less than or equal to 1099511627776, got "),
        ([0] * 9 + [2**41], "class_counts.9: input should be less than or equal to 1099511627776, got "),
    ],
)
def test_class_counts_by_which_nothing_can_be_drawn_are_refused(counts: list[int], reason: str, tmp_path: Path) -> None:
    path = model_file(tmp_path)
    card(path, class_counts=counts)
    assert f" invalid\n  {reason}" in refusal(load_model, path)


@pytest.mark.parametrize("block", ["double_conv", "residual"])
def test_a_table_of_times_that_the_file_does_not_pay_for_is_refused(block: str, tmp_path: Path) -> None:
    """Its size is not in the file: 100,000 timesteps would be 400 MB, and four times as much on the way."""
    path = model_file(tmp_path, block=block, time_embed_dim=64)
    card(path, schedule__timesteps=100_000, schedule__beta_start=1e-5, schedule__beta_end=1e-4)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path}: 1 invalid\n  the whole file: schedule.timesteps, 100000, times model.time_embed_dim, 64, must be at "
        "most 4194304; lower one of them"
    )
    card(path, schedule__timesteps=65_536)
    assert load_model(path).model.time_table.shape == (65_536, 64)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bound(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)  # the names of sockets must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


@pytest.mark.parametrize("stand_in", [pipe, device, bound, Path.mkdir])
@pytest.mark.parametrize("load", [load_model, load_classifier, load_arrays])
def test_what_is_no_file_is_refused_at_once(
    load: Callable[[Path], object], stand_in: Callable[[Path], None], tmp_path: Path
) -> None:
    stand_in(tmp_path / "model")
    assert refusal(load, tmp_path / "model") == "not a file of this pipeline, or damaged (no regular file)"
