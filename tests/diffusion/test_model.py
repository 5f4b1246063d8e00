"""The model file: it gives the model back by itself, trainings begin from it, and what does not fit is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.model import begin_from, load_model, new_network, save_model
from ddpm.diffusion.unet import UNet
from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.card import DataCard
from ddpm.params.card import ModelCard
from ddpm.params.model import ModelParams
from ddpm.params.schedule import ScheduleParams
from exact_stages.console import UserError
from exact_stages.files import read_yaml
from exact_stages.params import parse
from stages.train import Params
from tests.small import CPU, DIGITS, FRUITS, normal, randomised, unet_params

LINEAR = ScheduleParams(timesteps=12, beta_start=0.01, beta_end=0.3)
COUNTS = (0, 0, 0, 5, 0, 0, 0, 6265, 0, 0)
OTHERS = FRUITS.model_copy(update={"name": "market", "classes": ("plum", "pear", "fig", "leek")})
CLIP_ART = Path("data/clip_art.safetensors")
LARGER = FRUITS.model_copy(update={"shape": (3, 24, 12)})


def kind(**changes: object) -> ModelParams:
    given = {"channels": (4, 6), "patch_size": 2, "attention": True, "class_conditional": True, "prediction": "v"}
    return unet_params(**given | changes)


def network(data: DataCard = DIGITS, seed: int = 0, schedule: ScheduleParams = LINEAR, **changes: object) -> UNet:
    """A tiny network in training mode with all weights and running statistics away from their start."""
    shape = data.shape, len(data.classes), schedule.timesteps
    return randomised(new_network(kind(**changes), *shape), seed)


def save(
    path: Path,
    model: UNet,
    data: DataCard = DIGITS,
    counts: tuple[int, ...] = COUNTS,
    guide: dict[str, Tensor] | None = None,
    of: ModelParams | None = None,
    **changes: Any,
) -> None:
    facts = {
        "data": data,
        "model": of or kind(),
        "schedule": LINEAR,
        "class_counts": counts,
        "images_seen": 1,
        "faint": 0,
    }
    facts["guides"] = ("autoguidance",) if guide else ()
    save_model(path, model, ModelCard(**facts | changes), guide, versions={"torch": "x"})


def outputs(model: UNet) -> Tensor:
    with torch.no_grad():
        return model(normal(3, *DIGITS.shape), torch.tensor([0, 5, 11]), torch.tensor([3, 7, 7]))


@pytest.mark.parametrize(
    ("block", "prediction", "class_conditional"),
    [("residual", "v", True), ("residual", "v", False), ("double_conv", "noise", True)],
)
def test_a_model_comes_back_from_its_file_alone(
    tmp_path: Path, block: str, prediction: str, class_conditional: bool
) -> None:
    of = {"block": block, "prediction": prediction, "class_conditional": class_conditional}
    model = network(**of)
    save(tmp_path / "model", model, of=kind(**of))
    loaded = load_model(tmp_path / "model")
    assert loaded.card.model == kind(**of)
    assert loaded.card.data == DIGITS
    assert loaded.card.schedule == LINEAR
    assert torch.equal(loaded.schedule.betas, torch.linspace(0.01, 0.3, 12, dtype=torch.float64))
    assert (loaded.card.class_counts, loaded.card.classes) == (COUNTS, (3, 7))
    assert not any(module.training for module in loaded.network.modules())
    assert loaded.denoiser(CPU).prediction == prediction
    assert load_arrays(tmp_path / "model")[1]["versions"] == {"torch": "x"}
    torch.testing.assert_close(loaded.network.state_dict(), model.state_dict(), rtol=0, atol=0)
    # The loaded network's weights are channels-last, and sums in another order.
    torch.testing.assert_close(outputs(loaded.network), outputs(model.eval()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("guide", "guides"), [(False, ()), (False, ("classifier_free",)), (True, ("autoguidance", "classifier_free"))]
)
def test_guides_come_back_with_the_early_weights_and_saving_again_gives_equal_bytes(
    tmp_path: Path, guide: bool, guides: tuple[str, ...]
) -> None:
    path, weights = tmp_path / "model", network(seed=1).state_dict() if guide else None
    save(path, network(), guide=weights, guides=guides)
    loaded = load_model(path)
    assert loaded.card.guides == guides
    found = loaded.guide.state_dict() if loaded.guide else None
    torch.testing.assert_close(dict(found) if found else None, weights, rtol=0, atol=0)
    assert loaded.guide is None or not loaded.guide.training
    save(tmp_path / "again", loaded.network, guide=found, guides=guides)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def refusal(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> str:
    """What is said of a model file whose card and weights are changed, without its name."""
    save(path, network(), guide=network(seed=1).state_dict())
    arrays, metadata = load_arrays(path)
    arrays = {name: array.clone() for name, array in arrays.items()}
    change(metadata["card"], arrays)
    save_arrays(path, arrays, metadata)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda card, arrays: arrays.pop("head.2.bias"),
        lambda card, arrays: arrays.update({"guide.wings": torch.zeros(1)}),
        lambda card, arrays: arrays.update({"head.2.bias": torch.zeros(4).double()}),
        lambda card, arrays: card["data"].update(shape=[3, 28, 28]),
        lambda card, arrays: card["model"].update(channels=[2048, 6], bottleneck_blocks=16),  # takes no memory
    ],
)
def test_weights_that_do_not_fit_their_card_are_refused(tmp_path: Path, change: Any) -> None:
    assert refusal(tmp_path / "model", change).startswith("the weights do not fit the network")


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"model": {"block": "transformer", "wings": 2}}, ["model.block", "model.wings"]),
        ({"model": {"class_conditional": False}, "guides": ["classifier_free"]}, ["the whole file: guides"]),
        ({"timesteps": [11, 5]}, ["the whole file: guides"]),
        ({"timesteps": [11, 5, 6], "guides": []}, ["the whole file: timesteps"]),
        ({"class_counts": [1] * 9}, ["the whole file: 9 class_counts"]),
        ({"data": {"shape": [1, 28, 29]}}, ["the whole file: model.channels"]),
    ],
    ids=str,
)
def test_a_card_of_wrong_values_is_refused_by_key(tmp_path: Path, change: dict[str, Any], keys: list[str]) -> None:
    def wrong(card: dict[str, Any], _: object) -> None:
        for key, value in change.items():
            card[key] = card[key] | value if isinstance(value, dict) else value

    first, *lines = refusal(tmp_path / "model", wrong).split("\n  ")
    assert first == f"{len(keys)} invalid"
    assert all(line.startswith(key) for line, key in zip(lines, keys, strict=True)), lines


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A model of apples and pears: its set has figs too, and it saw none."""
    save(tmp_path / "start", network(FRUITS), FRUITS, (5, 0, 7))
    return tmp_path / "start"


def but_labels(model: UNet) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if "label" not in name}


def label_of(model: UNet) -> Tensor:
    return model.label.weight.detach()


@pytest.mark.parametrize(
    ("data", "known"),
    [(FRUITS, {0: 0, 2: 2}), (OTHERS, {1: 2}), (LARGER, {0: 0, 2: 2})],
    ids=["its own", "others", "larger images"],
)
def test_a_training_begins_with_the_weights_of_a_file_and_unseen_classes_with_random_ones(
    data: DataCard, known: dict[int, int], start: Path
) -> None:
    model = network(data, seed=1)
    begin_from(start, model, kind(), data, LINEAR)
    drawn, learned = label_of(network(data, seed=1)), label_of(network(FRUITS))
    rows = [learned[known[row]] if row in known else drawn[row] for row in range(len(drawn))]
    torch.testing.assert_close(label_of(model), torch.stack(rows), rtol=0, atol=0)
    torch.testing.assert_close(but_labels(model), but_labels(network(FRUITS)), rtol=0, atol=0)


@pytest.mark.parametrize("told", [True, False])
def test_either_network_may_be_told_no_class(told: bool, tmp_path: Path) -> None:
    before, model = (network(FRUITS, seed, class_conditional=each) for seed, each in enumerate((not told, told)))
    save(tmp_path / "start", before, FRUITS, (5, 0, 7), of=kind(class_conditional=not told))
    begin_from(tmp_path / "start", model, kind(class_conditional=told), FRUITS, LINEAR)
    torch.testing.assert_close(but_labels(model), but_labels(before), rtol=0, atol=0)
    assert not told or torch.equal(label_of(model), label_of(network(FRUITS, seed=1))), "its own"


@pytest.mark.parametrize(
    ("data", "changes", "key"),
    [
        (DIGITS, {}, "data.colour True, where False"),
        (FRUITS, {"prediction": "noise"}, "model.prediction"),
        (FRUITS, {"timesteps": 11}, "schedule.timesteps"),
    ],
    ids=str,
)
def test_what_a_training_cannot_begin_from_is_named(
    data: DataCard, changes: dict[str, object], key: str, start: Path
) -> None:
    of_schedule = {name: value for name, value in changes.items() if name in ScheduleParams.model_fields}
    schedule = LINEAR.model_copy(update=of_schedule)
    of_model = {name: changes[name] for name in changes.keys() - of_schedule.keys()}
    model = network(data, 1, schedule, **of_model)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(UserError, match=f"^train.fine_tune_from: .*{key}"):
        begin_from(start, model, kind(**of_model), data, schedule)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_the_model_of_clip_art_fits_what_the_default_makes_of_small_images_in_colour() -> None:
    values = read_yaml(Path("params.yaml"))
    params = parse(Params, {name: values[name] for name in Params.model_fields}, "params.yaml")
    data = FRUITS.model_copy(update={"shape": (3, 32, 32)})
    model = new_network(params.model, data.shape, len(data.classes), params.schedule.timesteps)
    begin_from(CLIP_ART, model, params.model.for_images(data.shape), data, params.schedule)
    torch.testing.assert_close(but_labels(model), but_labels(load_model(CLIP_ART).network), rtol=0, atol=0)


def test_what_is_no_model_is_no_start(tmp_path: Path) -> None:
    """Its message names the param, and the file that means none."""
    save_arrays(tmp_path / "start", {"images": torch.zeros(2)})
    for path in (tmp_path / "start", tmp_path / "absent"):
        with pytest.raises(UserError, match=rf"^train\.fine_tune_from: {path}: .*; data/scratch "):
            begin_from(path, network(FRUITS), kind(), FRUITS, LINEAR)


def test_a_distilled_model_is_no_start(tmp_path: Path) -> None:
    save(tmp_path / "start", network(FRUITS), FRUITS, (5, 6, 7), timesteps=(11, 5))
    with pytest.raises(UserError, match=r"^train\.fine_tune_from: "):
        begin_from(tmp_path / "start", network(FRUITS), kind(), FRUITS, LINEAR)
