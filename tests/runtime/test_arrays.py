"""What is written is read back, whole or not at all; and the randomness that needs no state."""

import json
import os
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from networks import unet_params
from pydantic import ValidationError
from torch import Tensor

from ddpm.data.images import IMAGE_SHAPE, to_float, to_uint8
from ddpm.data.splits import Split, load_samples, load_split
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.networks.checkpoint import load_model, save_model
from ddpm.networks.classifier import Classifier, ClassifierParams, load_classifier, save_classifier
from ddpm.networks.unet import UNet
from ddpm.runtime import files
from ddpm.runtime.arrays import load_arrays, save_arrays
from ddpm.runtime.console import UserError
from ddpm.runtime.files import write_json, write_whole
from ddpm.runtime.randomness import ImageNoise, generator

SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=12, beta_start=0.01, beta_end=0.3))
COUNTS = (0, 0, 0, 5, 0, 0, 0, 6265, 0, 0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def network(
    channels: tuple[int, ...] = (4, 6), block: str = "residual", prediction: str = "v", class_conditional: bool = True
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
        model = UNet(params, SCHEDULE)
        for weight in model.state_dict().values():
            if weight.is_floating_point():
                weight.uniform_(0.1, 0.5)
    return model.train()


def outputs(model: UNet) -> Tensor:
    x_t = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(x_t, torch.tensor([0, 5, 11]), torch.tensor([3, 7, 7]))


def test_write_whole_creates_parents_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    write_whole(path, b"old, and longer")
    assert path.read_bytes() == b"old, and longer"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file.bin"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_write_whole_gives_the_mode_that_the_user_has_chosen(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_write_whole_removes_what_a_killed_attempt_has_left(tmp_path: Path) -> None:
    writer = f"""
import os, signal
from pathlib import Path
from ddpm.runtime import files
files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write_whole(Path({str(tmp_path)!r}) / "file", b"killed half-way")
"""
    source = Path(files.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", writer], cwd=source).returncode == -signal.SIGKILL
    assert names(tmp_path) == [".file.partial"]
    write_whole(tmp_path / "file", b"whole")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_of_two_writers_of_one_file_neither_leaves_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(_: int) -> None:  # the other begins while the first one writes
        (tmp_path / ".file.partial").unlink()
        (tmp_path / ".file.partial").write_bytes(b"ha")

    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr(files.os, "fsync", meanwhile)
    with pytest.raises(FileExistsError, match="another process is writing it"):
        write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_write_whole_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    # So does DVC lay out its cache where links are asked for.
    (tmp_path / "cached").write_bytes(b"cached")
    (tmp_path / "file").symlink_to(tmp_path / "cached")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "cached").read_bytes() == b"cached"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    write_whole(tmp_path / "file", b"old")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(files.os, step, fail)
        with pytest.raises(type(error)):
            write_whole(tmp_path / "file", b"new")
    if isinstance(error, OSError):
        assert error.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_write_json_is_indented_and_ends_in_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "values.json", {"b": 1, "a": [0.1, None]})
    text = (tmp_path / "values.json").read_text()
    assert text == '{\n  "b": 1,\n  "a": [\n    0.1,\n    null\n  ]\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_write_json_refuses_what_is_no_json(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "values.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "values.json", {"a": value})
    assert json.loads((tmp_path / "values.json").read_text()) == {"a": 1}
    assert names(tmp_path) == ["values.json"]


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = {
        "bytes": torch.arange(256, dtype=torch.uint8).view(2, 128),
        "floats": torch.tensor([0.1, -0.0, float("inf"), float("nan"), 1e-45]),
        "double": torch.tensor([[1 / 3]], dtype=torch.float64),
        "turned": torch.arange(6).view(2, 3).T,
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "empty": torch.empty(2, 0, dtype=torch.uint8),
        "scalar": torch.tensor(7),
    }
    # Halves of one piece of memory, as the sample stage writes them.
    arrays["left"], arrays["right"] = torch.arange(8).view(2, 4)
    metadata = {"list": [1, 2], "text": "à", "nested": {"x": None}}
    save_arrays(tmp_path / "file.safetensors", arrays, metadata)
    loaded, read = load_arrays(tmp_path / "file.safetensors", set(arrays))
    assert read == metadata
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        torch.testing.assert_close(loaded[name], array, rtol=0, atol=0, equal_nan=True)


def test_arrays_without_metadata_have_none(tmp_path: Path) -> None:
    save_arrays(tmp_path / "file", {"a": torch.zeros(1)})
    assert load_arrays(tmp_path / "file")[1] == {}


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    a, b = torch.arange(3), torch.ones(2, 2)
    save_arrays(tmp_path / "first", {"a": a, "b": b}, {"x": 1, "y": {"p": 1, "q": 2}, "z": "s"})
    save_arrays(tmp_path / "second", {"b": b, "a": a.clone()}, {"z": "s", "y": {"q": 2, "p": 1}, "x": 1})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_writing_into_loaded_arrays_leaves_the_file_alone(tmp_path: Path) -> None:
    save_arrays(tmp_path / "file", {"a": torch.arange(3)})
    before = (tmp_path / "file").read_bytes()
    loaded, _ = load_arrays(tmp_path / "file")
    loaded["a"] += 100
    assert loaded["a"].tolist() == [100, 101, 102]
    assert (tmp_path / "file").read_bytes() == before
    assert load_arrays(tmp_path / "file")[0]["a"].tolist() == [0, 1, 2]


def test_arrays_loaded_before_a_rewrite_keep_their_values(tmp_path: Path) -> None:
    save_arrays(tmp_path / "file", {"a": torch.zeros(5000)})
    loaded, _ = load_arrays(tmp_path / "file")
    save_arrays(tmp_path / "file", {"a": torch.ones(5000)})
    assert loaded["a"].sum() == 0


def zip_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


def truncated(path: Path) -> None:
    save_arrays(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-1])


def header_only(path: Path) -> None:
    save_arrays(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        header_only,
        zip_file,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 1000),
        lambda path: path.write_text("<html>not found</html>"),
        lambda path: path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)})),
        lambda path: path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, {"ddpm": "{"})),
        lambda path: path.mkdir(),
        lambda path: torch.save({"a": torch.zeros(1)}, path),
    ],
    ids=["short", "header", "zip", "empty", "bytes", "html", "no metadata", "broken metadata", "folder", "pickle"],
)
def test_files_that_are_none_of_ours_are_refused_by_name(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "file.safetensors"
    damage(path)  # type: ignore[operator]
    with pytest.raises(UserError, match=r"file\.safetensors: not a file of this pipeline, or damaged"):
        load_arrays(path)


def test_a_missing_file_is_named_with_what_brings_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.safetensors: no such file; `dvc pull` or `dvc repro`"):
        load_arrays(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("wanted", [{"images"}, {"images", "labels", "more"}, {"images", "label"}, set()])
def test_other_names_than_wanted_are_refused(tmp_path: Path, wanted: set[str]) -> None:
    save_arrays(tmp_path / "file", {"images": torch.zeros(1), "labels": torch.zeros(1)})
    with pytest.raises(UserError, match=r"file: holds \['images', 'labels'\] where "):
        load_arrays(tmp_path / "file", wanted)


@pytest.mark.parametrize("optional", [{"labels"}, {"labels", "more"}])
def test_optional_names_may_be_there_or_not(tmp_path: Path, optional: set[str]) -> None:
    for arrays in ({"images": torch.ones(1)}, {"images": torch.ones(1), "labels": torch.zeros(1)}):
        save_arrays(tmp_path / "file", arrays)
        assert load_arrays(tmp_path / "file", {"images"}, optional)[0] == arrays


@pytest.mark.parametrize(
    ("names", "optional"), [({"images"}, {"more"}), ({"more"}, {"images", "labels"}), (set(), {"images"})]
)
def test_what_is_neither_wanted_nor_optional_is_refused(tmp_path: Path, names: set[str], optional: set[str]) -> None:
    save_arrays(tmp_path / "file", {"images": torch.zeros(1), "labels": torch.zeros(1)})
    with pytest.raises(UserError, match=r"file: holds \['images', 'labels'\] where "):
        load_arrays(tmp_path / "file", names, optional)


@pytest.mark.parametrize("block", ["residual", "double_conv"])
@pytest.mark.parametrize(("prediction", "class_conditional"), [("noise", True), ("v", False), ("v", True)])
def test_a_model_comes_back_from_its_file_alone(
    tmp_path: Path, block: str, prediction: str, class_conditional: bool
) -> None:
    model = network(block=block, prediction=prediction, class_conditional=class_conditional)
    save_model(tmp_path / "model.safetensors", model, SCHEDULE, COUNTS, versions={"torch": "x"})
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.card.model == model.params
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


def test_saving_a_model_again_gives_equal_bytes(tmp_path: Path) -> None:
    save_model(tmp_path / "first", network(), SCHEDULE, COUNTS, a=1, b=2)
    loaded = load_model(tmp_path / "first")
    save_model(tmp_path / "second", loaded.model, loaded.schedule, loaded.card.class_counts, b=2, a=1)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


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
        (7,),
        (1,) * 9,
        (1,) * 11,
        (1,) * 9 + (-1,),
        (1,) * 9 + (0.5,),
        (1,) * 9 + (True,),
        (1,) * 9 + (None,),
        "1111111111",
    ],
)
def test_class_counts_are_ten_numbers_of_images(tmp_path: Path, counts: object) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValidationError, match="class_counts"):
        save_model(path, network(), SCHEDULE, counts)  # type: ignore[arg-type]
    save_model(path, network(), SCHEDULE, COUNTS)
    arrays, metadata = load_arrays(path)
    metadata["card"]["class_counts"] = counts
    save_arrays(path, arrays, metadata)
    with pytest.raises(UserError, match=r"model\.safetensors: 1 invalid\n  class_counts"):
        load_model(path)


def test_a_model_file_from_before_class_counts_is_refused_by_key(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network(), SCHEDULE, COUNTS)
    arrays, metadata = load_arrays(path)
    del metadata["card"]["class_counts"], metadata["card"]["model"]["class_conditional"]
    metadata["card"]["classes"] = [7]
    save_arrays(path, arrays, metadata)
    with pytest.raises(UserError, match=r"3 invalid\n  model\.class_conditional: .*\n  class_counts: .*\n  classes:"):
        load_model(path)


def test_a_split_gives_the_images_of_the_classes_asked_for(tmp_path: Path) -> None:
    images = torch.arange(5, dtype=torch.float32).view(5, 1, 1, 1).expand(-1, 1, 28, 28)
    labels = torch.tensor([7, 1, 7, 0, 9], dtype=torch.uint8)
    save_arrays(tmp_path / "split", {"images": images, "labels": labels})
    whole, some = load_split(tmp_path / "split"), load_split(tmp_path / "split", [9, 7])
    assert torch.equal(whole.images, images)
    assert torch.equal(whole.labels, labels)
    assert some.images[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert some.labels.tolist() == [7, 7, 9]
    assert some.take(torch.tensor([2, 0])).labels.tolist() == [9, 7]
    for part, kept in ((slice(2), [0, 2]), (slice(2, None), [4]), (slice(3, None), [])):
        assert some.take(part).images[:, 0, 0, 0].tolist() == kept
        assert torch.equal(some.take(part).labels, some.labels[part])
    save_arrays(tmp_path / "other", {"images": images})
    with pytest.raises(UserError, match="other: holds"):
        load_split(tmp_path / "other")


def test_a_split_on_a_device_has_labels_that_index() -> None:
    there = Split(torch.zeros(2, 1, 28, 28), torch.tensor([255, 3], dtype=torch.uint8)).to(torch.device("cpu"))
    assert there.labels.dtype == torch.int64
    assert there.labels.tolist() == [255, 3]
    assert there.images.dtype == torch.float32


@pytest.mark.parametrize("labels", [{}, {"labels": torch.tensor([3, 7], dtype=torch.uint8)}])
def test_samples_have_labels_or_none(tmp_path: Path, labels: dict[str, Tensor]) -> None:
    frames = torch.zeros(2, 0, dtype=torch.uint8)
    arrays = {"images": torch.arange(2, dtype=torch.uint8), "x_t": frames, "pred_x_start": frames + 1, **labels}
    save_arrays(tmp_path / "samples", arrays, {"classes": [3, 7]})
    loaded, card = load_samples(tmp_path / "samples")
    torch.testing.assert_close(loaded, arrays, rtol=0, atol=0)
    assert card == {"classes": [3, 7]}
    for change in ({"more": frames}, {"x_t": None}):
        wrong = {name: array for name, array in {**arrays, **change}.items() if array is not None}
        save_arrays(tmp_path / "wrong", wrong)
        with pytest.raises(UserError, match="wrong: holds"):
            load_samples(tmp_path / "wrong")


def test_model_and_classifier_files_are_not_taken_for_one_another(tmp_path: Path) -> None:
    params = ClassifierParams(channels=2, epochs=1, batch_size=2, lr=0.1, shift=0, seed=0)
    save_classifier(tmp_path / "classifier", Classifier(params))
    save_model(tmp_path / "model", network(), SCHEDULE, COUNTS)
    with pytest.raises(UserError, match=r"classifier: not a model file of this project"):
        load_model(tmp_path / "classifier")
    with pytest.raises(UserError, match=r"model: not a classifier file of this project"):
        load_classifier(tmp_path / "model")


def test_every_byte_survives_the_way_to_float_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert floats[0] == -1
    assert floats[255] == 1
    torch.testing.assert_close(floats.double(), torch.arange(256).double() / 127.5 - 1, rtol=0, atol=1.2e-7)
    assert to_uint8(floats).dtype == torch.uint8
    assert torch.equal(to_uint8(floats), every)


def test_floats_are_clipped_and_rounded_to_the_nearest_byte() -> None:
    step = 1 / 127.5
    values = torch.tensor([-1.5, -1.0, 1.0, 1.5, 1e30, -float("inf"), -1 + 0.49 * step, -1 + 0.51 * step, 0.4 * step])
    assert to_uint8(values).tolist() == [0, 0, 255, 255, 255, 0, 0, 1, 128]


def draw(*name: object) -> list[float]:
    return torch.rand(4, generator=generator(*name)).tolist()  # type: ignore[arg-type]


def test_a_generator_is_that_of_its_three_names() -> None:
    first = draw(0, "train", 5)
    torch.rand(100)
    assert draw(0, "train", 5) == first
    others = [draw(1, "train", 5), draw(0, "image", 5), draw(0, "train", 6), draw(0, "train"), draw(5, "train", 0)]
    assert len({tuple(values) for values in [first, *others]}) == 6


def test_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    draw(0, "train", 5)
    ImageNoise(0, [0, 1], IMAGE_SHAPE)()
    assert torch.equal(torch.get_rng_state(), before)


def test_generators_are_pinned() -> None:
    # A change here changes every result of the project.
    assert generator(0, "train", 0).initial_seed() == 3168021335108090602
    assert draw(0, "train", 0) == pytest.approx([0.2869742, 0.6810609, 0.7739152, 0.394296], abs=1e-6)


def test_the_noise_of_an_image_is_the_same_in_any_batch() -> None:
    together = ImageNoise(3, range(6), IMAGE_SHAPE)
    alone = ImageNoise(3, [4], IMAGE_SHAPE)
    turned = ImageNoise(3, [5, 4, 100], IMAGE_SHAPE)
    for _ in range(3):
        whole, single, other = together(), alone(), turned()
        assert whole.shape == (6, 1, 28, 28)
        assert whole.dtype == torch.float32
        assert torch.equal(single[0], whole[4])
        assert torch.equal(other[:2], whole[[5, 4]])
        assert len({image.sum().item() for image in whole}) == 6


def test_the_noise_goes_on_and_hangs_on_the_seed() -> None:
    noise = ImageNoise(3, [0], IMAGE_SHAPE)
    first, second = noise(), noise()
    assert not torch.equal(first, second)
    assert torch.equal(ImageNoise(3, [0], IMAGE_SHAPE)(), first)
    assert not torch.equal(ImageNoise(4, [0], IMAGE_SHAPE)(), first)


def test_the_noise_is_standard_normal() -> None:
    noise = ImageNoise(0, range(200), IMAGE_SHAPE)()
    # 156,800 draws: five standard errors.
    assert noise.mean().item() == pytest.approx(0, abs=0.0127)
    assert noise.var().item() == pytest.approx(1, abs=0.018)
    # Independent between images: correlations have a deviation of 1/28.
    correlations = noise.flatten(1).corrcoef().fill_diagonal_(0)
    assert correlations.abs().max() < 6 / 28
