"""A class-conditional model draws the classes that are asked for, and the labels stand beside the images."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from ddpm.data.images import to_uint8
from ddpm.generate import draw_images, write_pngs
from ddpm.networks.checkpoint import load_model
from ddpm.networks.sampling import draw_batch, draw_labels
from ddpm.runtime.console import UserError
from ddpm.runtime.device import Runtime
from tests.generating import CPU, call, sampler, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), class_conditional=False)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("conditional"), class_conditional=True)


@pytest.mark.parametrize(("options", "classes"), [([], "all"), (["--classes", 7], [7]), (["--classes", 7, 1], [7, 1])])
def test_a_class_conditional_model_draws_what_is_asked_for_and_says_what(
    options: list[object], classes: object, conditional: Path, tmp_path: Path
) -> None:
    out = call(conditional, tmp_path / "out", "--format", "npz", "--count", 20, "--first", 3, "--seed", 2, *options)
    params, loaded = sampler(classes=classes), load_model(conditional)
    labels = draw_labels(loaded.card, params, 2, range(3, 23))
    *_, last = draw_batch(loaded, params, 2, range(3, 23), CPU)
    with np.load(out / "images.npz") as arrays:
        assert sorted(arrays.files) == ["images", "labels"]
        assert arrays["labels"].dtype == np.int64
        assert arrays["labels"].tolist() == labels.tolist()
        assert set(labels.tolist()) == set([1, 3, 7] if classes == "all" else classes)
        assert np.array_equal(arrays["images"], to_uint8(last.x_prev).squeeze(1).numpy())


def test_labels_stand_beside_the_pictures_that_they_name(
    conditional: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Runtime, "sample_batch", property(lambda _: 2))
    out = call(conditional, tmp_path / "out", "--count", 5, "--first", 8, "--seed", 1)
    labels = draw_labels(load_model(conditional).card, sampler(), 1, range(8, 13)).tolist()
    assert len(set(labels)) > 1
    rows = [f"{number:06d}.png,{label}" for number, label in zip(range(8, 13), labels, strict=True)]
    assert (out / "labels.csv").read_text() == "\n".join(["image,label", *rows]) + "\n"
    assert sorted(path.name for path in out.iterdir()) == [f"{number:06d}.png" for number in range(8, 13)] + [
        "labels.csv"
    ]


def test_what_is_cut_off_has_the_labels_of_its_pictures(
    conditional: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded = load_model(conditional)
    drawn = draw_images(loaded, sampler(), 1, range(8, 13), CPU)
    monkeypatch.setattr(Runtime, "sample_batch", property(lambda _: 2))
    write_pngs(tmp_path, range(8, 13), islice(drawn, 1), draw_labels(loaded.card, sampler(), 1, range(8, 13)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000008.png", "000009.png", "labels.csv"]
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 1 + 2


@pytest.mark.parametrize("image_format", ["png", "npz"])
@pytest.mark.parametrize(
    ("which", "classes", "message"),
    [
        ("model", [1], "classes: this model is not class-conditional; say all, or train one on these classes alone"),
        ("conditional", [7, 2], "classes: the model has not seen 2; choose from [1, 3, 7]"),
    ],
)
def test_classes_that_the_model_cannot_draw_are_refused(
    which: str,
    classes: list[int],
    message: str,
    image_format: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    path = request.getfixturevalue(which)
    with pytest.raises(UserError) as caught:
        call(path, tmp_path / "out", "--format", image_format, "--classes", *classes)
    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()
