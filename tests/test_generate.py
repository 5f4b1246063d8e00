import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import unet_params
from PIL import Image

from ddpm import generate
from ddpm.data.images import to_uint8
from ddpm.diffusion.samplers import SamplerParams
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.generate import draw_images, write_pngs
from ddpm.networks.checkpoint import load_model, save_model
from ddpm.networks.sampling import draw_batch, draw_labels
from ddpm.networks.unet import UNet
from ddpm.runtime.arrays import save_arrays
from ddpm.runtime.console import UserError
from ddpm.runtime.device import Runtime

REPOSITORY = Path(__file__).parents[1]
CPU = Runtime(torch.device("cpu"), torch.float32)
Generate = Callable[..., np.ndarray]


def sampler(**changes: object) -> SamplerParams:
    """What the options of `run` mean, but for the changes."""
    defaults = {"sampler": "dpmpp_2m", "steps": 5, "spacing": "trailing", "variance": "posterior", "eta": 1.0}
    return SamplerParams.model_validate({**defaults, "clip": True, "classes": "all", **changes})


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the CPU in float32, and torch's settings as they were afterwards."""
    monkeypatch.setenv("DDPM_DEVICE", "cpu")
    monkeypatch.setenv("DDPM_PRECISION", "float32")
    monkeypatch.delenv("DDPM_THREADS", raising=False)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def tiny_model(folder: Path, class_conditional: bool) -> Path:
    """A tiny model of 20 timesteps whose every weight is random: at its start, a network would predict zero."""
    path = folder / "tiny.safetensors"
    params = unet_params(
        channels=(4, 8), time_embed_dim=8, patch_size=2, class_conditional=class_conditional, prediction="v"
    )
    schedule = NoiseSchedule(ScheduleParams(timesteps=20, beta_start=0.001, beta_end=0.5))
    network = UNet(params, schedule)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(0, 0.3, generator=source)
    save_model(path, network, schedule, (0, 30, 0, 10, 0, 0, 0, 60, 0, 0))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), class_conditional=False)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("conditional"), class_conditional=True)


@pytest.fixture
def run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Call the command line's main, by default with 5 steps and into a new folder, which is returned."""

    def call(*options: object, out: Path | None = None) -> Path:
        out = out or tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        # The first of an option given twice is the default, the second what counts.
        words = ["--model", model, "--out", out, "--steps", 5, *options]
        monkeypatch.setattr(sys, "argv", ["generate", *map(str, words)])
        generate.main()
        return out

    return call


@pytest.fixture
def drawn(run: Callable[..., Path]) -> Generate:
    """The images that the options give."""

    def call(*options: object) -> np.ndarray:
        with np.load(run("--format", "npz", *options) / "images.npz") as arrays:
            assert arrays.files == ["images"]
            return arrays["images"]

    return call


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
    monkeypatch.setattr(Runtime, "sample_batch", property(lambda _: 2))
    images = drawn("--count", 5)
    assert images.shape == (5, 28, 28)
    assert np.array_equal(drawn("--count", 2), images[:2])
    assert np.array_equal(drawn("--count", 4), images[:4])


def test_the_batch_does_not_change_an_image(drawn: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for rounding: a convolution may sum in another order for another number of images."""
    together = drawn("--count", 5).astype(int)
    monkeypatch.setattr(Runtime, "sample_batch", property(lambda _: 1))
    assert np.abs(drawn("--count", 5) - together).max() <= 1


def test_first_goes_on(run: Callable[..., Path], drawn: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "sample_batch", property(lambda _: 1))
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


@pytest.mark.parametrize(("options", "classes"), [([], "all"), (["--classes", 7], [7]), (["--classes", 7, 1], [7, 1])])
def test_a_class_conditional_model_draws_what_is_asked_for_and_says_what(
    options: list[object], classes: object, run: Callable[..., Path], conditional: Path
) -> None:
    out = run("--model", conditional, "--format", "npz", "--count", 20, "--first", 3, "--seed", 2, *options)
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
    run: Callable[..., Path], conditional: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "sample_batch", property(lambda _: 2))
    out = run("--model", conditional, "--count", 5, "--first", 8, "--seed", 1)
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
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 1 + 5


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
    run: Callable[..., Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    path = request.getfixturevalue(which)
    with pytest.raises(UserError) as caught:
        run("--model", path, "--format", image_format, "--classes", *classes, out=tmp_path / "out")
    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_taken(run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run("--count", 1, out=tmp_path / "empty")
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["000000.png"]


def test_missing_parents_are_made(run: Callable[..., Path], tmp_path: Path) -> None:
    out = run("--count", 1, out=tmp_path / "a/b/c")
    assert (out / "000000.png").exists()


@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_a_folder_with_anything_in_it_is_refused(run: Callable[..., Path], image_format: str, tmp_path: Path) -> None:
    out = tmp_path / "full"
    out.mkdir()
    (out / "000000.png").write_bytes(b"mine")
    with pytest.raises(UserError) as caught:
        run("--format", image_format, out=out)
    assert str(caught.value) == f"--out {out}: exists and is not an empty folder; nothing was written"
    assert [path.name for path in out.iterdir()] == ["000000.png"]
    assert (out / "000000.png").read_bytes() == b"mine"


def test_a_file_in_the_place_of_the_folder_is_refused(run: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        run(out=tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_too_many_steps_are_refused(run: Callable[..., Path], image_format: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run("--format", image_format, "--steps", 21, out=tmp_path / "out")
    assert str(caught.value) == "steps is 21, but the model has only 20 timesteps"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("eta", ["2", "-0.5", "nan", "inf"])
def test_a_wrong_eta_is_refused(run: Callable[..., Path], eta: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^command line: 1 invalid\n  eta: "):
        run(f"--eta={eta}", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_model_is_refused(run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run("--model", tmp_path / "none.safetensors", out=tmp_path / "out")
    assert str(caught.value).startswith(f"{tmp_path}/none.safetensors: no such file; ")
    assert not (tmp_path / "out").exists()


def test_a_foreign_model_is_refused(run: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_arrays(path, {"x": torch.zeros(1)})
    with pytest.raises(UserError) as caught:
        run("--model", path, out=tmp_path / "out")
    assert str(caught.value) == f"{path}: not a model file of this project"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "0"], "argument --count: '0' is not a whole number of at least 1"),
        (["--count", "-3"], "argument --count: '-3' is not a whole number of at least 1"),
        (["--count", "1.5"], "argument --count: '1.5' is not a whole number of at least 1"),
        (["--first", "-1"], "argument --first: '-1' is not a whole number of at least 0"),
        (["--seed", "x"], "argument --seed: 'x' is not a whole number of at least 0"),
        (["--steps", "0"], "argument --steps: '0' is not a whole number of at least 1"),
        (["--eta", "much"], "argument --eta: invalid float value: 'much'"),
        (["--format", "jpg"], "argument --format: invalid choice: 'jpg'"),
        (["--sampler", "plms"], "argument --sampler: invalid choice: 'plms'"),
        (["--classes", "10"], "argument --classes: invalid choice: 10"),
        (["--classes", "-1"], "argument --classes: "),
        (["--classes", "seven"], "argument --classes: invalid int value: 'seven'"),
        (["--classes"], "argument --classes: expected at least one argument"),
    ],
)
def test_a_wrong_option_is_named(
    options: list[str], message: str, run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*options, out=tmp_path / "out")
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def command_line(*options: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-m", "ddpm.generate", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_help_names_every_option() -> None:
    result = command_line("--help")
    assert result.returncode == 0
    assert result.stderr == ""
    words = "model out count format seed first sampler steps spacing eta variance classes clip"
    assert " ".join(re.findall(r"^  --([a-z-]+)", result.stdout, flags=re.MULTILINE)) == words
    assert "{ddpm,ddim,dpmpp_2m}" in result.stdout
    assert "{posterior,beta}" in result.stdout


def test_the_command_line_ends_with_one_line(tmp_path: Path, model: Path) -> None:
    result = command_line("--model", str(model), "--out", str(tmp_path / "out"), "--steps", "21")
    assert result.returncode == 1
    assert result.stderr == "error: steps is 21, but the model has only 20 timesteps\n"
    assert list(tmp_path.iterdir()) == []
