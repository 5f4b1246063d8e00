"""The preprocess stage: which images are trained on and which are for testing, what is refused, and what is left."""

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.images.splits import Processed, hashed_places, load_split
from ddpm.ingest.datasets import SIZES
from ddpm.ingest.idx import read_idx_folder
from ddpm.ingest.preparation import target_of
from ddpm.pipeline import stage as module
from ddpm.pipeline.console import UserError
from ddpm.pipeline.stage import Stage
from stages import preprocess
from stages.preprocess import main, report

ROOT = Path(__file__).parents[2]
MINE = "data/mine"
FRUITS = ("fig", "no", "red apple")
SIZE = (16, 8)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "LAST", [])


def picture(seed: int) -> Tensor:
    """Levels (16, 8, 3) that no other seed has, nor nearly."""
    return torch.randint(0, 256, (*SIZE, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def draw(name: str, seed: int, folder: str = MINE) -> None:
    """A picture file; its suffix is its format."""
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed).numpy()).save(path)


def draw_many(count: int, where: str = "", first: int = 0, folder: str = MINE) -> None:
    """So many pictures, of the classes in turn, each named by its number."""
    for number in range(first, first + count):
        draw(f"{where}/{FRUITS[number % 3]}/{number:04d}.png".lstrip("/"), number, folder)


def run(folder: str = MINE, **changes: Any) -> dict[str, Any]:
    """The stage from its beginning to its end; returns the summary."""
    data = {"set": folder, "image_size": None, "colour": None, "fit": "crop", "background": "white", "test": 0.1}
    Path("params.yaml").write_text(json.dumps({"data": data | changes}))
    stage = Stage("preprocess")
    stage.item = folder
    main(stage)
    stage.finish()
    return json.loads(Path("metrics/preprocess/summary.json").read_text())


def place_of(path: Path) -> float:
    """Of a file, in [0, 1): held out are those below the share."""
    row = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    return hashed_places(row.view(1, 1, 1, -1), "place").item()


def split(name: str) -> Processed:
    return load_split(Path(f"data/processed/{name}.safetensors"))


def contents(name: str) -> list[tuple[bytes, str]]:
    """Every image with the name of its class, in order."""
    card, (images, labels), _, _ = split(name)
    rows = images.permute(0, 2, 3, 1).numpy()
    return [(row.tobytes(), card.classes[label]) for row, label in zip(rows, labels.tolist(), strict=True)]


def drawn(*numbers: int) -> list[tuple[bytes, str]]:
    return [(picture(number).numpy().tobytes(), FRUITS[number % 3]) for number in numbers]


def outputs() -> dict[str, bytes]:
    """What the stage has left."""
    files = [path for folder in ("data/processed", "metrics") for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}


# What becomes of the pictures -----------------------------------------------------------------------------------------


def test_a_folder_with_train_and_test_is_split_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    draw_many(30, "train")
    draw_many(9, "test", first=30)
    (Path(MINE) / "LICENSE").touch()
    summary = run()
    assert contents("train") == drawn(*range(30))
    assert contents("test") == drawn(*range(30, 39))
    card = {"name": "mine", "shape": [3, 16, 8], "classes": [*FRUITS], "value_range": [-1, 1]}
    assert summary["data"] == card
    assert split("train").card.model_dump(mode="json") == split("test").card.model_dump(mode="json") == card
    assert split("train").groups.tolist() == [*range(30)]
    assert split("test").groups.tolist() == [*range(9)]
    assert split("train").test_counts == split("test").test_counts == (3, 3, 3)
    for name, count in (("train", 30), ("test", 9)):
        values = split(name).split.images.double() / 127.5 - 1
        assert summary[name]["images"] == count
        assert summary[name]["label_counts"] == dict.fromkeys(FRUITS, count // 3)
        assert summary[name]["pixel_mean"] == pytest.approx(values.mean().item(), abs=1e-6)
        assert summary[name]["pixel_deviation"] == pytest.approx(values.std().item(), abs=1e-6)
    assert (summary["equal_in_both"], summary["with_twins"]) == (0, 0)
    assert summary["follows"] == {
        "data.image_size": "16 x 8, their own",
        "data.colour": "true, since 39 of 39 images have colour",
    }
    assert capsys.readouterr().out.splitlines() == [
        "data.image_size: 16 x 8, their own",
        "data.colour: true, since 39 of 39 images have colour",
        "3 classes, 30 training images, 9 test images, the folder's own",
        "ignored, for they are no pictures: 1, such as LICENSE",
        "note: fewer than 6 test images, too few to train on these alone: fig, no, red apple",
        "note: 30 training images are few; docs/images.md says what to expect",
    ]


def test_pictures_get_the_form_that_is_asked_for() -> None:
    draw_many(30, "train")
    draw_many(9, "test", first=30)
    summary = run(image_size=[30, 20], colour=False, fit="stretch")
    images = split("test").split.images
    assert images.shape == (9, 1, 32, 20)
    assert torch.equal(images[:, :, 0], images[:, :, 1])  # the edges that were added
    assert summary["follows"] == {"data.image_size": "30 x 20, padded to 32 x 20, which can be halved"}


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_without_a_test_folder_about_a_share_is_held_out(share: float, capsys: pytest.CaptureFixture[str]) -> None:
    draw_many(300)
    summary = run(test=share)
    train, test = contents("train"), contents("test")
    assert sorted(train + test) == sorted(drawn(*range(300)))
    assert len(test) == summary["test"]["images"] == pytest.approx(300 * share, abs=4 * (300 * share) ** 0.5)
    assert (
        f"{len(train)} training images, {len(test)} test images, held out by their content" in capsys.readouterr().out
    )


def test_an_added_or_renamed_image_moves_no_other_to_the_other_side() -> None:
    draw_many(200)
    run()
    before = {name: contents(name) for name in ("train", "test")}
    draw("fig/another.png", 1000)
    os.rename(f"{MINE}/no/0001.png", f"{MINE}/no/renamed.png")
    os.remove(f"{MINE}/fig/0000.png")
    run()
    gone, new = drawn(0), [(picture(1000).numpy().tobytes(), "fig")]
    assert sorted(contents("train") + contents("test")) == sorted(drawn(*range(1, 200)) + new)
    for name, images in before.items():
        assert sorted({*contents(name)} - {*new}) == sorted({*images} - {*gone})


def test_twins_are_on_one_side_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    draw_many(200)
    for number in range(200):
        draw(f"{FRUITS[number % 3]}/{number:04d} copy.bmp", number)
    summary = run()
    assert (summary["equal_in_both"], summary["with_twins"]) == (0, 200)
    told = "200 images are equal or nearly equal to others, which are on the same side"
    assert told in capsys.readouterr().out.splitlines()
    for name in ("train", "test"):
        _, (images, _), groups, _ = split(name)
        assert len({*contents(name)}) == len(images) // 2
        assert torch.equal(images, images[groups])


def test_nearly_equal_images_are_held_out_together_and_no_more_often_than_others() -> None:
    Path(MINE, "no").mkdir(parents=True)
    for number in range(600):
        levels = picture(number // 4).numpy()
        levels[0, 0, 0] = levels[0, 0, 0] // 4 * 4 + number % 4
        Image.fromarray(levels).save(f"{MINE}/no/{number:04d}.png")
    summary = run(test=0.1)
    assert (summary["with_twins"], summary["equal_in_both"]) == (450, 0)
    assert summary["test"]["images"] / 4 in [*range(1, 30)]  # of 150 groups, 15 +- 4 x 3.7


def test_no_other_size_or_colour_moves_an_image_to_the_other_side() -> None:
    draw_many(200)
    held_out = [int(path.stem) for path in Path(MINE).rglob("*.png") if place_of(path) < 0.1]
    assert 6 < len(held_out) < 40
    for size, colour in ((None, None), ([8, 8], None), (None, False), ([8, 8], False)):
        run(image_size=size, colour=colour)
        pictures = [Image.fromarray(picture(number).numpy()[slice(4, 12) if size else ...]) for number in held_out]
        expected = sorted(each.convert("RGB" if colour is None else "L").tobytes() for each in pictures)
        assert sorted(levels for levels, _ in contents("test")) == expected


@pytest.mark.parametrize("in_both", [0, 1, 4])
def test_test_images_that_equal_training_images_are_counted(in_both: int, capsys: pytest.CaptureFixture[str]) -> None:
    draw_many(30, "train")
    draw_many(9, "test", first=30 - in_both)
    draw("train/fig/twin.png", 3)  # of a training image: in both are test images alone
    summary = run()
    assert summary["equal_in_both"] == in_both
    assert summary["with_twins"] == 1
    warning = f"warning: {in_both} test images are equal to training images: scores of them say less"
    assert (warning in capsys.readouterr().out) == (in_both > 0)


def test_pictures_in_no_folder_are_one_class() -> None:
    for number in range(200):
        draw(f"{number:04d}.png", number)
    summary = run()
    assert summary["data"]["classes"] == ["mine"]
    assert split("train").test_counts == (len(split("test").split.labels),)
    assert summary["train"]["label_counts"] == {"mine": len(split("train").split.labels)}


def test_classes_of_few_test_images_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    draw_many(30, "train")
    draw_many(16, "test", first=30)
    run()
    told = "note: fewer than 6 test images, too few to train on these alone: no, red apple"
    assert told in capsys.readouterr().out.splitlines()


def test_the_same_pictures_give_the_same_bytes() -> None:
    draw_many(200)
    run()
    first = outputs()
    shutil.copytree(MINE, "elsewhere/mine")
    run("elsewhere/mine/fig/..")  # a set is named by its folder
    assert outputs() == first
    assert first.keys() == {
        "data/processed/test.safetensors",
        "data/processed/train.safetensors",
        "metrics/preprocess/summary.json",
    }


# MNIST ----------------------------------------------------------------------------------------------------------------


def cut_mnist(folder: Path, counts: dict[str, int]) -> None:
    """The first images of the raw files, as four files of the same names."""
    raw = Path(os.environ.get("DDPM_DATA_DIR") or ROOT / "data/mnist")
    raw = raw / "mnist" if (raw / "mnist").is_dir() else raw
    if not all((raw / name).is_file() for name in SIZES):
        pytest.skip("the raw files of MNIST are not here")
    folder.mkdir(parents=True)
    for name in SIZES:
        count, data = counts[name.partition("-")[0]], (raw / name).read_bytes()
        start, each = (16, 28 * 28) if "images" in name else (8, 1)
        (folder / name).write_bytes(data[:4] + struct.pack(">I", count) + data[8:start] + data[start:][: count * each])


def test_mnist_as_pictures_named_by_their_numbers_gives_the_arrays_of_its_files() -> None:
    cut_mnist(Path("raw/mnist"), {"train": 400, "t10k": 100})
    train, test = read_idx_folder(Path("raw/mnist"))[1:3]
    for name, pictures in (("train", train), ("test", test)):
        for number, (levels, label) in enumerate(pictures or []):
            path = Path(f"data/mnist/{name}/{label}/{number:05d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(levels)).save(path)
    found = []
    for folder in ("raw/mnist", "data/mnist"):
        summary = run(folder)
        found.append(outputs())
        assert (summary["train"]["images"], summary["test"]["images"]) == (400, 100)
        assert summary["data"]["shape"] == [1, 28, 28]
        assert split("train").split.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert found[0] == found[1]


# What is refused, and what is left ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (9, 9, "data.set: data/mine gives 9 train images, and at least 12 are needed; add images"),
        (30, 5, "data.set: data/mine gives 5 test images, and at least 6 are needed; add images"),
    ],
)
def test_too_few_images_are_refused(train: int, test: int, message: str) -> None:
    draw_many(train, "train")
    draw_many(test, "test", first=train)
    with pytest.raises(UserError) as caught:
        run()
    assert str(caught.value) == message
    assert not outputs()


def test_where_too_few_are_held_out_a_share_that_holds_out_enough_is_named() -> None:
    draw_many(60)
    places = sorted(place_of(path) for path in Path(MINE).rglob("*.png"))
    count = sum(place < 0.01 for place in places)
    share = (int(100 * places[5]) + 1) / 100
    with pytest.raises(UserError) as caught:
        run(test=0.01)
    assert str(caught.value) == (
        f"data.set: data/mine gives {count} test images, and at least 6 are needed; add images, or set data.test to "
        f"{share:g}"
    )
    assert not outputs()
    assert run(test=share)["test"]["images"] == sum(place < share for place in places) >= 6


def test_a_class_of_which_all_would_be_held_out_is_refused() -> None:
    draw_many(200)
    for number in range(300, 320):
        draw(f"pear/{number}.png", number)
    for path in sorted(Path(MINE, "pear").iterdir(), key=place_of)[2:]:
        path.unlink()
    with pytest.raises(UserError, match=r"leaves no training images of pear; add some, or see data\.test$"):
        run(test=0.5)
    assert not outputs()


def test_unreadable_pictures_are_named_together_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_many(30, "train")
    draw_many(9, "test", first=30)
    run()
    before = outputs()
    Path(MINE, "train/fig/0000.png").write_bytes(b"")
    Path(MINE, "train/no/zz.jpg").write_text("<html>")
    cut = Path(MINE, "test/fig/0030.png")
    cut.write_bytes(cut.read_bytes()[:-20])
    monkeypatch.setattr(preprocess, "Images", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(UserError) as caught:
        run()
    first, *lines = str(caught.value).split("\n")
    assert first == "3 unreadable pictures; mend or remove:"
    assert lines[:2] == [
        "  data/mine/train/fig/0000.png: empty",
        "  data/mine/train/no/zz.jpg: not a readable PNG, JPEG, WebP, BMP or GIF picture",
    ]
    assert lines[2].startswith("  data/mine/test/fig/0030.png: ")
    assert len(lines) == 3
    assert outputs() == before


def test_a_picture_that_breaks_while_it_runs_leaves_nothing_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_many(30, "train")
    draw_many(9, "test", first=30)

    def breaking(*given: Any) -> Any:
        Path(MINE, "test/fig/0030.png").write_bytes(b"")
        return target_of(*given)

    monkeypatch.setattr(preprocess, "target_of", breaking)
    with pytest.raises(
        UserError, match=r"^data/mine/test/fig/0030\.png: empty; it changed meanwhile, so run it again$"
    ):
        run()
    assert not outputs()
    assert not [*Path("data/processed").iterdir()]


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_a_folder_that_changes_while_it_runs_leaves_no_outputs(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_many(30, "train")
    draw_many(9, "test", first=30)

    def meanwhile(*given: Any) -> None:
        report(*given)
        match change:
            case "edited":
                draw("train/fig/0000.png", 77)
            case "added":
                draw("train/fig/0100.png", 77)
            case _:
                Path(MINE, "train/fig/0000.png").unlink()

    monkeypatch.setattr(preprocess, "report", meanwhile)
    with pytest.raises(UserError) as caught:
        run()
    assert str(caught.value) == (
        "preprocess: nothing of this run is kept as output, for these changed while it ran: data/mine; "
        "put them back, or leave them so, and run it again"
    )
    assert not outputs()


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"^data/mine: 1 fault\n  cannot be read: No such file or directory$"):
        run()
    assert not outputs()
