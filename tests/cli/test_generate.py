"""What `ddpm generate` samples, and the files that it leaves."""

import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpm.cli.options import DEFAULTS, GUIDED
from ddpm.compute.device import Runtime
from ddpm.images.splits import to_uint8
from ddpm.model import load_model
from ddpm.sample import sample_batch, sample_labels
from exact_stages.console import UserError
from exact_stages.params import load_params
from stages.sample import SampleParams
from tests.cli.generating import ended, generate, sampler, started, tiny_model, wait_for
from tests.small import CPU, FRUITS

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model files, by what they can do."""
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"class_conditional": False},
        "none": {"class_conditional": True},
        "autoguidance": {"class_conditional": True, "guide": True},
        "classifier_free": {"class_conditional": True, "classifier_free": True},
        "both": {"class_conditional": True, "guide": True, "classifier_free": True},
        "distilled": {"class_conditional": False, "own": (19, 12, 5)},
        "fruits": {"class_conditional": True, "data": FRUITS, "counts": (30, 0, 60)},
    }
    return {kind: tiny_model(tmp_path_factory.mktemp(kind), **options) for kind, options in kinds.items()}


@pytest.fixture
def sampled(models: dict[str, Path], tmp_path: Path) -> Callable[..., Arrays]:
    """The arrays that a model and options give."""

    def sampled(kind: str, *options: object) -> Arrays:
        out = tmp_path / str(len([*tmp_path.iterdir()]))
        (found,) = archives(generate(models[kind], out, "--format", "npz", *options))
        return found

    return sampled


def archives(folder: Path) -> list[Arrays]:
    """The arrays of all archives in a folder, by their names."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            found.append(dict(arrays))
    return found


def expected(model: Path, seed: int, numbers: range, **changes: object) -> np.ndarray:
    *_, last = sample_batch(load_model(model), sampler(**changes), seed, numbers, CPU)
    return to_uint8(last.x_prev).permute(0, 2, 3, 1).squeeze(3).numpy()


def test_pictures_and_arrays_hold_the_same(
    models: dict[str, Path], sampled: Callable[..., Arrays], tmp_path: Path
) -> None:
    options = ["--count", 3, "--first", 8, "--seed", 1]
    out = generate(models["none"], tmp_path / "out", *options)
    arrays = sampled("none", *options)
    assert sorted(path.name for path in out.iterdir()) == ["000008.png", "000009.png", "000010.png", "labels.csv"]
    assert (arrays["images"].shape, arrays["images"].dtype) == ((3, 28, 28), np.uint8)
    assert len(np.unique(arrays["images"])) > 50  # not all black, white or grey
    for number, image in zip(range(8, 11), arrays["images"], strict=True):
        picture = Image.open(out / f"{number:06d}.png")
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (28, 28))
        assert np.array_equal(np.asarray(picture), image)


def test_equal_seeds_give_equal_files_and_others_do_not(models: dict[str, Path], tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        generate(models["plain"], tmp_path / name, "--count", 2, "--seed", seed)
    contents = [[path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
    assert contents[0][0] != contents[0][1]


def test_count_first_and_batches_do_not_change_an_image(
    sampled: Callable[..., Arrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = sampled("none", "--count", 5)["images"].astype(int)
    monkeypatch.setattr(Runtime, "sample_batch_size", lambda *_: 1)
    single = sampled("none", "--count", 5)
    assert np.abs(single["images"] - together).max() <= 1  # a convolution may sum in another order for another batch
    for first, count in ((0, 2), (3, 2)):
        part = sampled("none", "--first", first, "--count", count)
        assert np.array_equal(part["images"], single["images"][first : first + count])
        assert np.array_equal(part["labels"], single["labels"][first : first + count])


@pytest.mark.parametrize(
    ("kind", "options", "changes"),
    [
        ("plain", "", {}),
        ("plain", "--eta 0 --spacing trailing", {"eta": 0.0, "spacing": "trailing"}),
        ("plain", "--steps 20", {"steps": 20}),
        (
            "plain",
            "--sampler ddpm --variance beta --no-clip",
            {"sampler": "ddpm", "variance": "beta", "clip": False},
        ),
        ("autoguidance", "", {"guidance": 1.3}),
        ("classifier_free", "", {"guidance": 1.0}),
        ("none", "--guidance 1 --guidance-interval=-9,9", {"guidance": 1.0}),
        ("both", "--guidance 0", {"guidance": 0.0}),
        ("both", "--guidance 4.5", {"guidance": 4.5}),
        ("both", "--guidance-interval=-1.5,0.25", {"guidance": 1.3, "guidance_interval": (-1.5, 0.25)}),
        ("both", "--guide classifier_free", {"guidance": 1.1, "guide": "classifier_free"}),
        ("distilled", "--steps 3", {"sampler": "ddpm", "steps": None, "spacing": None}),
        ("distilled", "--steps 3 --sampler ddim", {"sampler": "ddim", "steps": None, "spacing": None}),
    ],
)
def test_options_reach_the_sampler(
    kind: str, options: str, changes: dict[str, object], models: dict[str, Path], sampled: Callable[..., Arrays]
) -> None:
    images = sampled(kind, "--count", 2, "--seed", 3, *options.split())["images"]
    assert np.array_equal(images, expected(models[kind], 3, range(2), **changes))


def test_the_defaults_are_those_of_the_pipeline() -> None:
    for name in ("gallery", "population"):
        params = load_params(SampleParams, f"sample.{name}", Path("params.yaml"))
        same = GUIDED if name == "gallery" else DEFAULTS | {"classes": ()}
        assert {key: getattr(params, key) for key in same} == same


@pytest.mark.parametrize(
    ("kind", "options", "labels"),
    [
        ("none", [], {1, 3, 7}),
        ("none", ["--classes", "7,1"], {7, 1}),
        ("fruits", ["--classes", "pear"], {2}),
        ("fruits", [], {0, 2}),
    ],
)
def test_classes_that_are_asked_for_are_sampled_and_named(
    kind: str,
    options: list[str],
    labels: set[int],
    models: dict[str, Path],
    sampled: Callable[..., Arrays],
    tmp_path: Path,
) -> None:
    options = ["--count", "20", "--first", "3", "--seed", "2", *options]
    arrays, loaded = sampled(kind, *options), load_model(models[kind])
    names = loaded.card.data.classes
    params = sampler(classes=[names[label] for label in labels], spacing="cubic" if kind == "none" else "log_snr")
    assert set(arrays["labels"].tolist()) == labels
    assert arrays["labels"].tolist() == sample_labels(loaded.card, params, 2, range(3, 23)).tolist()
    assert arrays["classes"].tolist() == [*names]
    assert np.array_equal(arrays["images"], expected(models[kind], 2, range(3, 23), **params.model_dump()))
    out = generate(models[kind], tmp_path / "png", *options)
    rows = [f"{number:06d}.png,{names[label]}" for number, label in enumerate(arrays["labels"], start=3)]
    assert (out / "labels.csv").read_text().splitlines() == ["image,label", *rows]
    assert np.array_equal(np.asarray(Image.open(out / "000003.png")), arrays["images"][0])


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [
        ("plain", "--count 0", "ddpm generate: --count: "),
        ("plain", "--eta nan", "ddpm generate: --eta: "),
        ("plain", "--guidance-interval 1,2,3", "ddpm generate: --guidance-interval: "),
        ("plain", "--guidance-interval=2,-4", "options: 1 invalid\n  guidance_interval: "),
        ("plain", "--nonsense 1", "unrecognized arguments: --nonsense"),
        ("none", "--classes 7,2", "classes: the model has not seen 2"),
        ("distilled", "--steps 3 --sampler dpmpp_2m", "sampler: "),
        ("distilled", "--steps 3 --eta 0.5", "eta: "),
        ("distilled", "--steps 3 --guidance-interval=-1,1", "guidance_interval: "),
        ("distilled", "--steps 3 --guide autoguidance", "guide: "),
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


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send Ctrl-C after so many steps."""
    steps = iter(range(step))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    def interrupted(*arguments: Any) -> Any:
        for each in sample_batch(*arguments):
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGINT)
            yield each

    monkeypatch.setattr("ddpm.cli.generate.sample_batch", interrupted)


@pytest.mark.parametrize("image_format", ["png", "npz"])
def test_after_ctrl_c_what_is_finished_stays_and_the_rest_can_be_sampled(
    image_format: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "sample_batch_size", lambda *_: 3)
    options = ["--format", image_format, "--seed", 4]
    with monkeypatch.context() as patched:
        interrupt_at(12, patched)
        going_on = "interrupted after 6 of 20 images; continue with --first 106 --count 14 and another --out"
        with pytest.raises(UserError, match=f"^{going_on}$"):
            generate(models["none"], tmp_path / "out", *options, "--count", 20, "--first", 100)
    generate(models["none"], tmp_path / "whole", *options, "--count", 6, "--first", 100)
    found, whole = ({path.name: path for path in (tmp_path / name).iterdir()} for name in ("out", "whole"))
    assert sorted(found) == sorted(whole)
    if image_format == "png":
        assert all(path.read_bytes() == whole[name].read_bytes() for name, path in found.items())
    else:
        np.testing.assert_equal(archives(tmp_path / "out"), archives(tmp_path / "whole"))


def joined(batches: list[Arrays]) -> Arrays:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in ("images", "labels")}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
def test_what_is_sampled_stays_until_the_archive_is_whole(
    error: BaseException, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "sample_batch_size", lambda *_: 3)
    options = ["--format", "npz", "--count", 8, "--first", 100]
    generate(models["none"], tmp_path / "whole", *options)
    monkeypatch.setattr(os, "replace", raised(error, for_name="whole"))
    out = tmp_path / "out"
    with pytest.raises(UserError, match=rf"^{out}/images-000100\.npz: not written, .*{out}/images-000100\.parts has"):
        generate(models["none"], out, *options)
    (whole,) = archives(tmp_path / "whole")
    np.testing.assert_equal(joined(archives(out / "images-000100.parts")), joined([whole]))
    assert [path.name for path in out.iterdir()] == ["images-000100.parts"]


def test_a_full_disk_while_sampling_is_named_and_what_is_finished_stays(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "sample_batch_size", lambda *_: 3)
    monkeypatch.setattr(os, "replace", raised(OSError(errno.ENOSPC, "full"), for_name=".0000000000003.npz.partial"))
    full = (
        f"{tmp_path}/out/images.parts/0000000000003.npz: full after 3 of 8 images; continue with --first 3 --count 5 "
    )
    with pytest.raises(UserError, match=f"^{full}"):
        generate(models["none"], tmp_path / "out", "--format", "npz", "--count", 8)
    assert [len(each["images"]) for each in archives(tmp_path / "out")] == [3]


def raised(error: BaseException, for_name: str) -> Callable[[Path, Path], None]:
    """`os.replace`, but for a file of this name."""
    replace = os.replace

    def replaced(source: Path, target: Path) -> None:
        if Path(source).name == for_name:
            raise error
        replace(source, target)

    return replaced


def test_processes_may_share_a_folder_and_all_images_stay(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "sample_batch_size", lambda *_: 2)
    (whole,) = archives(generate(models["none"], tmp_path / "whole", "--format", "npz", "--count", 10))
    monkeypatch.setattr("ddpm.cli.generate.check_free", lambda _: None)  # all began when the folder was empty
    for first, count in ((0, 4), (4, 6)):
        generate(models["none"], tmp_path / "out", "--format", "npz", "--first", first, "--count", count)
    with pytest.raises(UserError, match=r"/images\.npz: another process writes it"):
        generate(models["none"], tmp_path / "out", "--format", "npz", "--seed", 1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images-000004.npz", "images.npz"]
    np.testing.assert_equal(joined(archives(tmp_path / "out")[::-1]), joined([whole]))


def test_sigterm_ends_the_command_in_one_line(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, class_conditional=True, timesteps=1000)
    process = started("generate", "--model", model, "--out", tmp_path / "out", "--count", 2000, "--steps", 50)
    wait_for((tmp_path / "out/labels.csv").exists, process)
    process.send_signal(signal.SIGTERM)
    code, line = ended(process)
    assert code == 1
    assert re.fullmatch(r"error: interrupted after \d+ of 2000 images; continue with --first .*", line)


def test_a_mistake_ends_with_one_line(models: dict[str, Path], tmp_path: Path) -> None:
    process = started("generate", "--model", models["plain"], "--out", tmp_path / "out", "--steps", "much")
    code, line = ended(process)
    assert code == 1
    assert line.startswith("error: ddpm generate: --steps: ")
