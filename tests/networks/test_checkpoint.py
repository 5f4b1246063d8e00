"""The model file: it gives the model back by itself, and what does not fit is refused by name."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ddpm.classifier.model import Classifier, ClassifierParams, load_classifier, save_classifier
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.card import DataCard
from ddpm.networks.checkpoint import load_model, save_model
from ddpm.networks.unet import UNet
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from tests.small import DIGITS, FRUITS, unet_params

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=12, beta_start=0.01, beta_end=0.3))
COUNTS = (0, 0, 0, 5, 0, 0, 0, 6265, 0, 0)


def network(
    channels: tuple[int, ...] = (4, 6),
    block: str = "residual",
    prediction: str = "v",
    class_conditional: bool = True,
    data: DataCard = DIGITS,
) -> UNet:
    """A tiny network in training mode with all weights and running statistics away from their start."""
    params = unet_params(
        channels=channels,
        block=block,
        patch_size=2,
        bottleneck_blocks=2,
        attention=True,
        class_conditional=class_conditional,
        prediction=prediction,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet(params, SCHEDULE, data)
        for weight in model.state_dict().values():
            if weight.is_floating_point():
                weight.uniform_(0.1, 0.5)
    return model.train()


def outputs(model: UNet) -> Tensor:
    x_t = torch.randn(3, *model.data.shape, generator=torch.Generator().manual_seed(1))
    classes = len(model.data.classes)
    with torch.no_grad():
        return model(x_t, torch.tensor([0, 5, 11]), torch.tensor([3, 7, 7]) % classes)


@pytest.mark.parametrize("block", ["residual", "double_conv"])
@pytest.mark.parametrize(("prediction", "class_conditional"), [("noise", True), ("v", False), ("v", True)])
def test_a_model_comes_back_from_its_file_alone(
    tmp_path: Path, block: str, prediction: str, class_conditional: bool
) -> None:
    model = network(block=block, prediction=prediction, class_conditional=class_conditional)
    save_model(tmp_path / "model.safetensors", model, SCHEDULE, COUNTS, versions={"torch": "x"})
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.card.model == loaded.model.params == model.params
    assert loaded.card.data == loaded.model.data == DIGITS
    assert loaded.card.schedule == loaded.schedule.params == SCHEDULE.params
    assert loaded.card.class_counts == COUNTS
    assert loaded.card.classes == (3, 7)
    assert torch.equal(loaded.schedule.alphas_cumprod, SCHEDULE.alphas_cumprod)
    assert not any(module.training for module in loaded.model.modules())
    assert load_arrays(tmp_path / "model.safetensors")[1]["versions"] == {"torch": "x"}
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight), name
    expected = outputs(model.eval())
    assert expected.std() > 0.01
    # The loaded network's weights are channels-last, and sums in another order.
    torch.testing.assert_close(outputs(loaded.model), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(outputs(load_model(str(tmp_path / "model.safetensors")).model), outputs(loaded.model))


def test_a_model_of_other_images_comes_back_as_well(tmp_path: Path) -> None:
    model = network(data=FRUITS)
    save_model(tmp_path / "model", model, SCHEDULE, (5, 0, 7))
    loaded = load_model(tmp_path / "model")
    assert loaded.card.data == loaded.model.data == FRUITS
    assert loaded.card.classes == (0, 2)
    torch.testing.assert_close(outputs(loaded.model), outputs(model.eval()), rtol=1e-5, atol=1e-5)


def test_saving_a_model_again_gives_equal_bytes(tmp_path: Path) -> None:
    save_model(tmp_path / "first", network(), SCHEDULE, COUNTS, a=1, b=2)
    loaded = load_model(tmp_path / "first")
    save_model(tmp_path / "second", loaded.model, loaded.schedule, loaded.card.class_counts, b=2, a=1)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def early_weights(**changes: Any) -> dict[str, Tensor]:
    """Half of those of `network`."""
    model = network(**changes)
    return {name: weight * 0.5 if weight.is_floating_point() else weight for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("block", ["residual", "double_conv"])
@pytest.mark.parametrize(
    ("early", "unlabelled", "guides"),
    [
        (False, False, ()),
        (True, False, ("early",)),
        (False, True, ("unlabelled",)),
        (True, True, ("early", "unlabelled")),
    ],
)
def test_guides_come_back_with_the_early_weights(
    tmp_path: Path, block: str, early: bool, unlabelled: bool, guides: tuple[str, ...]
) -> None:
    path, weights = tmp_path / "model.safetensors", early_weights(block=block) if early else None
    save_model(path, network(block=block), SCHEDULE, COUNTS, early=weights, unlabelled=unlabelled)
    loaded = load_model(path)
    assert loaded.card.guides == guides
    torch.testing.assert_close(outputs(loaded.model), outputs(network(block=block).eval()), rtol=1e-5, atol=1e-5)
    if not weights:
        assert loaded.early is None
        return
    assert loaded.early
    assert not any(module.training for module in loaded.early.modules())
    torch.testing.assert_close(dict(loaded.early.state_dict()), weights, rtol=0, atol=0)
    expected = network(block=block).eval()
    expected.load_state_dict(weights)
    torch.testing.assert_close(outputs(loaded.early), outputs(expected), rtol=1e-5, atol=1e-5)
    assert (outputs(loaded.early) - outputs(loaded.model)).abs().max() > 0.01
    facts: dict[str, Any] = {"early": loaded.early.state_dict(), "unlabelled": unlabelled}
    save_model(tmp_path / "again", loaded.model, loaded.schedule, loaded.card.class_counts, **facts)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_model_file_from_before_there_were_guides_loads(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network(), SCHEDULE, COUNTS)
    arrays, metadata = load_arrays(path)
    assert metadata["card"].pop("guides") == []
    save_arrays(path, arrays, metadata)
    loaded = load_model(path)
    assert (loaded.card.guides, loaded.early) == ((), None)


UNFIT = r"the weights do not fit the network that the file describes: "


@pytest.mark.parametrize(
    ("guides", "early", "says"),
    [
        (["early"], {}, UNFIT + r"(early\.)?\S+ is absent and not float32 \[.*\]"),
        (["unlabelled", "early"], {}, UNFIT + r"(early\.)?\S+ is absent and not float32 \[.*\]"),
        ([], early_weights(), UNFIT + r"early\.\S+ is float32 \[.*\] and not absent"),
        (["unlabelled"], early_weights(), UNFIT + r"early\.\S+ is float32 \[.*\] and not absent"),
        (["early"], early_weights(channels=(4, 8)), UNFIT + r"(early\.)?\S+ is float32 \[.*\] and not float32 \[.*\]"),
        (["early"], early_weights(block="double_conv"), UNFIT + r"(early\.)?\S+ is .*"),
        (
            ["early"],
            early_weights() | {"head.2.bias": torch.zeros(4).half()},
            UNFIT + r"(early\.)?head\.2\.bias is float16 \[4\] and not float32 \[4\]",
        ),
        (
            ["early"],
            early_weights() | {"head.2.bias": torch.full((4,), torch.nan)},
            r"(early\.)?head\.2\.bias is not finite everywhere; fetch the file again, or train it anew",
        ),
        (
            ["early"],
            early_weights() | {"wings": torch.zeros(1)},
            UNFIT + r"(early\.)?wings is float32 \[1\] and not absent",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value)[:40],
)
def test_early_weights_that_do_not_fit_what_the_card_claims_are_refused(
    tmp_path: Path, guides: list[str], early: dict[str, Tensor], says: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network(), SCHEDULE, COUNTS)
    arrays, metadata = load_arrays(path)
    metadata["card"]["guides"] = guides
    save_arrays(path, arrays | {f"early.{name}": weight for name, weight in early.items()}, metadata)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert re.fullmatch(f"{re.escape(str(path))}: {says}", str(caught.value))


@pytest.mark.parametrize(
    ("guides", "says"),
    [
        (["late"], "guides.0: input should be 'early' or 'unlabelled', got \"late\""),
        ("early", 'guides: must be a list, in brackets, got "early"'),
        (None, "guides: must be a list, in brackets, got null"),
        (["unlabelled"], "the whole file: guides: a network that is told no class is always unlabelled"),
    ],
    ids=str,
)
def test_guides_that_there_cannot_be_are_refused(tmp_path: Path, guides: object, says: str) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network(class_conditional=False), SCHEDULE, COUNTS)
    arrays, metadata = load_arrays(path)
    metadata["card"]["guides"] = guides
    save_arrays(path, arrays, metadata)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(caught.value) == f"{path}: 1 invalid\n  {says}"


def test_a_network_that_is_told_no_class_is_not_saved_as_one_that_can_be_unlabelled(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="is always unlabelled"):
        save_model(tmp_path / "model", network(class_conditional=False), SCHEDULE, COUNTS, unlabelled=True)
    assert not (tmp_path / "model").exists()


def rewritten(path: Path, drop: str = "", **changes: object) -> None:
    """The model file at `path` with one tensor fewer, or with other values in its card's model."""
    arrays, metadata = load_arrays(path)
    metadata["card"]["model"] |= changes
    save_arrays(path, {name: array.clone() for name, array in arrays.items() if name != drop}, metadata)


@pytest.mark.parametrize(
    "change",
    [
        {"drop": "head.2.bias"},
        {"channels": [4, 8]},
        {"channels": [4]},
        {"block": "double_conv"},
        {"attention": False},
        {"class_conditional": False},
        {"bottleneck_blocks": 3},
    ],
)
def test_weights_that_do_not_fit_their_card_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network(), SCHEDULE, COUNTS)
    rewritten(path, **change)  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"model\.safetensors: the weights do not fit the network that the file describes"
    ):
        load_model(path)


def test_a_card_with_unknown_values_is_refused_by_key(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network(), SCHEDULE, COUNTS)
    rewritten(path, block="transformer", wings=2)
    with pytest.raises(UserError, match=r"model\.safetensors: 2 invalid\n  model\.block: .*\n  model\.wings: "):
        load_model(path)


@pytest.mark.parametrize(
    "counts",
    [
        (),
        (0,) * 10,
        (1,) * 9 + (-1,),
        (1,) * 9 + (0.5,),
        (1,) * 9 + (True,),
        (1,) * 9 + (None,),
        "1111111111",
    ],
)
def test_class_counts_are_numbers_of_images(tmp_path: Path, counts: object) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValidationError, match="class_counts"):
        save_model(path, network(), SCHEDULE, counts)  # type: ignore[arg-type]
    save_model(path, network(), SCHEDULE, COUNTS)
    arrays, metadata = load_arrays(path)
    metadata["card"]["class_counts"] = counts
    save_arrays(path, arrays, metadata)
    with pytest.raises(UserError, match=r"model\.safetensors: 1 invalid\n  class_counts"):
        load_model(path)


@pytest.mark.parametrize("counts", [(7,), (1,) * 9, (1,) * 11])
def test_there_is_a_count_for_each_class(tmp_path: Path, counts: tuple[int, ...]) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValidationError, match=f"{len(counts)} class_counts for 10 classes"):
        save_model(path, network(), SCHEDULE, counts)
    save_model(path, network(), SCHEDULE, COUNTS)
    arrays, metadata = load_arrays(path)
    metadata["card"]["class_counts"] = counts
    save_arrays(path, arrays, metadata)
    with pytest.raises(UserError, match=rf"1 invalid\n  the whole file: {len(counts)} class_counts for 10 classes$"):
        load_model(path)


@pytest.mark.parametrize("key", ["channels", "patch_size"])
def test_a_card_must_say_what_was_chosen_for_the_images(tmp_path: Path, key: str) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network(), SCHEDULE, COUNTS)
    rewritten(path, **{key: None})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"1 invalid\n  the whole file: model: has no channels or patch_size$"):
        load_model(path)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ([3, 28, 28], "the weights do not fit the network that the file describes: head.2.bias is "),
        (
            [1, 28, 29],
            "1 invalid\n  the whole file: model.channels: 2 of them, with model.patch_size 2, shrink images by 4",
        ),
        ([2, 28, 28], "1 invalid\n  data.shape.0: must be 1, grey, or 3, colour, got 2"),
    ],
)
def test_images_that_the_network_is_not_of_are_refused(tmp_path: Path, shape: list[int], says: str) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network(), SCHEDULE, COUNTS)
    arrays, metadata = load_arrays(path)
    metadata["card"]["data"]["shape"] = shape
    save_arrays(path, arrays, metadata)
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: {says}")


def test_a_model_file_from_before_data_cards_is_refused_by_key(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network(), SCHEDULE, COUNTS)
    arrays, metadata = load_arrays(path)
    del metadata["card"]["data"]
    save_arrays(path, arrays, metadata)
    with pytest.raises(UserError, match=r"1 invalid\n  data: missing; "):
        load_model(path)


def test_model_and_classifier_files_are_not_taken_for_one_another(tmp_path: Path) -> None:
    params = ClassifierParams(channels=2, images=1, epochs=1, batch_size=2, lr=0.1, shift=0, seed=0)
    save_classifier(tmp_path / "classifier", Classifier(params, DIGITS))
    save_model(tmp_path / "model", network(), SCHEDULE, COUNTS)
    with pytest.raises(UserError, match=r"classifier: not a model file of this project"):
        load_model(tmp_path / "classifier")
    with pytest.raises(UserError, match=r"model: not a classifier file of this project"):
        load_classifier(tmp_path / "model")
