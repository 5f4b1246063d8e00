"""What `python -m ddpm.cli.generate` draws, and the files that it leaves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.compute.device import Runtime
from ddpm.images.pixels import to_uint8
from ddpm.networks.checkpoint import load_model
from ddpm.sampling.drawing import draw_batch
from tests.cli.generating import CPU, call, sampler, tiny_model

Generate = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), class_conditional=False)


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Call main, by default into a new folder, which is returned."""

    def run(*options: object, out: Path | None = None) -> Path:
        return call(model, out or tmp_path / f"out{len(list(tmp_path.iterdir()))}", *options)

    return run


@pytest.fixture
def drawn(run: Callable[..., Path]) -> Generate:
    """The images that the options give."""

    def drawn(*options: object) -> np.ndarray:
        with np.load(run("--format", "npz", *options) / "images.npz") as arrays:
            assert arrays.files == ["images", "classes"]
            assert arrays["classes"].tolist() == list("0123456789")
            return arrays["images"]

    return drawn


def test_pngs_are_named_by_number_and_hold_the_images(run: Callable[..., Path], drawn: Generate) -> None:
    out = run("--count", 3)
    assert sorted(path.name for path in out.iterdir()) == ["000000.png", "000001.png", "000002.png"]
    images = drawn("--count", 3)
    for number in range(3):
        picture = Image.open(out / f"{number:06d}.png")
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (28, 28))
        assert np.array_equal(np.asarray(picture), images[number])


def test_npz_is_one_array_of_bytes(run: Callable[..., Path]) -> None:
    out = run("--format", "npz", "--count", 4)
    assert [path.name for path in out.iterdir()] == ["images.npz"]
    with np.load(out / "images.npz") as arrays:
        assert arrays["images"].shape == (4, 28, 28)
        assert arrays["images"].dtype == np.uint8
        assert len(np.unique(arrays["images"])) > 50  # not all black, white or grey


@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_equal_seeds_give_equal_files(run: Callable[..., Path], image_format: str) -> None:
    first, second = (run("--format", image_format, "--count", 2, "--seed", 7) for _ in range(2))
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    for name in names:
        if image_format == "png":
            assert (first / name).read_bytes() == (second / name).read_bytes()
        else:
            assert np.array_equal(np.load(first / name)["images"], np.load(second / name)["images"])


def test_images_and_seeds_differ(drawn: Generate) -> None:
    images, others = drawn("--count", 2, "--seed", 1), drawn("--count", 2, "--seed", 2)
    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images, others)


def test_the_count_does_not_change_an_image(drawn: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of two, so that more images mean more batches."""
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 2)
    images = drawn("--count", 5)
    assert images.shape == (5, 28, 28)
    assert np.array_equal(drawn("--count", 2), images[:2])
    assert np.array_equal(drawn("--count", 4), images[:4])


def test_the_batch_does_not_change_an_image(drawn: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for rounding: a convolution may sum in another order for another number of images."""
    together = drawn("--count", 5).astype(int)
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 1)
    assert np.abs(drawn("--count", 5) - together).max() <= 1


def test_first_goes_on(run: Callable[..., Path], drawn: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "sample_batch", lambda *_: 1)
    images = drawn("--count", 5)
    assert np.array_equal(drawn("--first", 3, "--count", 2), images[3:])
    out = run("--first", 3, "--count", 2)
    assert sorted(path.name for path in out.iterdir()) == ["000003.png", "000004.png"]
    assert np.array_equal(np.asarray(Image.open(out / "000004.png")), images[4])


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ([], {}),
        (["--eta", 0], {"eta": 0.0}),
        (["--steps", 20], {"steps": 20}),
        (
            ["--sampler", "ddpm", "--variance", "beta", "--no-clip"],
            {"sampler": "ddpm", "variance": "beta", "clip": False},
        ),
    ],
)
def test_options_reach_the_sampler(
    options: list[object], changes: dict[str, object], drawn: Generate, model: Path
) -> None:
    images = drawn("--count", 2, "--seed", 3, *options)
    *_, last = draw_batch(load_model(model), sampler(**changes), 3, [0, 1], CPU)
    assert np.array_equal(images, to_uint8(last.x_prev).squeeze(1).numpy())


def test_options_change_the_images(drawn: Generate) -> None:
    choices: list[list[object]] = [[], ["--eta", 0], ["--sampler", "ddpm", "--variance", "beta"], ["--steps", 4]]
    results = [drawn("--count", 1, *options).tobytes() for options in choices]
    assert len(set(results)) == len(choices)
