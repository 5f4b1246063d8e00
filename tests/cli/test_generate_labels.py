"""A class-conditional model draws the classes that are asked for, and the labels stand beside the images."""

import csv
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.cli.generate import draw_images, write_pngs
from ddpm.compute.device import Runtime
from ddpm.images.pixels import to_uint8
from ddpm.networks.checkpoint import load_model
from ddpm.pipeline.console import UserError
from ddpm.sampling.drawing import draw_batch, draw_labels
from tests.cli.generating import CPU, call, sampler, tiny_model
from tests.small import DIGITS, FRUITS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), class_conditional=False)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("conditional"), class_conditional=True)


@pytest.fixture(scope="module")
def fruits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("fruits"), class_conditional=True, data=FRUITS, counts=(30, 0, 60))


@pytest.mark.parametrize(
    ("options", "classes"), [([], [1, 3, 7]), (["--classes", 7], [7]), (["--classes", 7, 1], [7, 1])]
)
def test_a_class_conditional_model_draws_what_is_asked_for_and_says_what(
    options: list[object], classes: list[int], conditional: Path, tmp_path: Path
) -> None:
    out = call(conditional, tmp_path / "out", "--format", "npz", "--count", 20, "--first", 3, "--seed", 2, *options)
    params, loaded = sampler(classes=classes), load_model(conditional)
    labels = draw_labels(loaded.card, params, 2, range(3, 23))
    *_, last = draw_batch(loaded, params, 2, range(3, 23), CPU)
    with np.load(out / "images.npz") as arrays:
        assert sorted(arrays.files) == ["classes", "images", "labels"]
        assert arrays["classes"].tolist() == list("0123456789")
        assert arrays["labels"].dtype == np.int64
        assert arrays["labels"].tolist() == labels.tolist()
        assert set(labels.tolist()) == set(classes)
        assert np.array_equal(arrays["images"], to_uint8(last.x_prev).squeeze(1).numpy())


def test_labels_stand_beside_the_pictures_that_they_name(
    conditional: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 2)
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
    labels = draw_labels(loaded.card, sampler(), 1, range(8, 13))
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 2)
    write_pngs(tmp_path, range(8, 13), islice(drawn, 1), labels, DIGITS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000008.png", "000009.png", "labels.csv"]
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 1 + 2


@pytest.mark.parametrize("image_format", ["png", "npz"])
@pytest.mark.parametrize(
    ("which", "classes", "message"),
    [
        ("model", [1], "classes: this model is not class-conditional; say all, or train one on these classes alone"),
        ("conditional", [7, 2], "classes: the model has not seen 2; choose from 1, 3, 7"),
        ("conditional", ["10"], f"classes: no class is named 10; choose from {', '.join('0123456789')}"),
        ("conditional", [-1], f"classes: no class is named -1; choose from {', '.join('0123456789')}"),
        ("conditional", ["all", "1"], f"classes: no class is named all; choose from {', '.join('0123456789')}"),
        ("fruits", ["pear", "fig"], "classes: the model has not seen fig; choose from apple, pear"),
        ("fruits", [0], "classes: no class is named 0; choose from apple, fig, pear"),
    ],
)
def test_classes_that_the_model_cannot_draw_are_refused(
    which: str,
    classes: list[object],
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


@pytest.mark.parametrize(("options", "labels"), [([], {0, 2}), (["--classes", "pear"], {2})])
def test_images_in_colour_and_the_names_of_their_classes(
    options: list[object], labels: set[int], fruits: Path, tmp_path: Path
) -> None:
    words = ["--count", 12, "--seed", 3, *options]
    with np.load(call(fruits, tmp_path / "npz", "--format", "npz", *words) / "images.npz") as arrays:
        found = {name: arrays[name] for name in arrays.files}
    assert found["images"].shape == (12, 16, 8, 3)
    assert found["images"].dtype == np.uint8
    assert found["classes"].tolist() == ["apple", "fig", "pear"]
    assert set(found["labels"].tolist()) == labels
    loaded, params = load_model(fruits), sampler(classes=options[1:] or "all", spacing="log_snr")
    *_, last = draw_batch(loaded, params, 3, range(12), CPU)
    assert np.array_equal(found["images"], to_uint8(last.x_prev).permute(0, 2, 3, 1).numpy())
    out = call(fruits, tmp_path / "png", *words)
    rows = [f"{number:06d}.png,{FRUITS.classes[label]}" for number, label in enumerate(found["labels"])]
    assert (out / "labels.csv").read_text().splitlines() == ["image,label", *rows]
    for number, image in enumerate(found["images"]):
        picture = Image.open(out / f"{number:06d}.png")
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (8, 16))
        assert np.array_equal(np.asarray(picture), image)


def test_names_of_any_characters_come_back_from_the_tables(tmp_path: Path) -> None:
    names = ("a, b", "a 'b'", "010", "\u00e9\u2603", "NA")
    data = FRUITS.model_copy(update={"classes": names})
    model = tiny_model(tmp_path, class_conditional=True, data=data, counts=(1,) * 5)
    for index, name in enumerate(names):
        out = call(model, tmp_path / f"png{index}", "--count", 1, "--steps", 1, "--classes", name)
        with (out / "labels.csv").open(encoding="utf-8", newline="") as file:
            assert [*csv.reader(file)] == [["image", "label"], ["000000.png", name]]
    out = call(model, tmp_path / "npz", "--count", 2, "--steps", 1, "--format", "npz", "--classes", *names[1:])
    with np.load(out / "images.npz") as arrays:
        assert arrays["classes"].tolist() == [*names]
