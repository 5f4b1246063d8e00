"""The preprocess stage: which images are trained on and which are for testing, what is told and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.images.splits import SplitFile, load_split, to_float
from ddpm.images.starts import CHOSEN, CLIP_ART, NONE, SCRATCH
from ddpm.params.model import ModelParams
from exact_stages.console import UserError
from exact_stages.files import read_yaml, sha256
from exact_stages.stage import Stage
from stages import preprocess
from tests.stages import written

ROOT = Path(__file__).parents[2]
MINE = "data/mine"
FRUITS = ("fig", "no", "red apple")
DATA = written.DATA | {"range": None}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written.link_code("dvc.yaml", "pyproject.toml", "constraints.txt")  # of which the provenance tells
    Path("data").mkdir()
    Path(CLIP_ART).write_text("a model")


def picture(seed: int) -> Tensor:
    """Levels (16, 8, 3) that no other seed has, nor nearly."""
    return torch.randint(0, 256, (16, 8, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def draw(name: str, seed: int, change: int = 0) -> None:
    path = Path(MINE, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = picture(seed).numpy()
    levels[0, 0, 0] ^= change
    Image.fromarray(levels).save(path)


def draw_many(count: int, where: str = "", first: int = 0) -> None:
    """So many pictures, of the classes in turn, each named by its number."""
    for number in range(first, first + count):
        draw(f"{where}/{FRUITS[number % 3]}/{number:04d}.png".lstrip("/"), number)


def run(**changes: Any) -> dict[str, Any]:
    params = read_yaml(ROOT / "params.yaml")  # of all stages, or DVC cannot resolve dvc.yaml
    Path("params.yaml").write_text(json.dumps(params | {"data": DATA | changes}))
    preprocess.main(Stage("preprocess"))
    return json.loads(Path("metrics/preprocess/summary.json").read_text())


def split(name: str) -> SplitFile:
    return load_split(Path(f"data/processed/{name}.safetensors"))


def contents(name: str) -> list[tuple[bytes, str]]:
    card, (images, labels), _, _ = split(name)
    rows = images.permute(0, 2, 3, 1).numpy()
    return [(row.tobytes(), card.classes[label]) for row, label in zip(rows, labels.tolist(), strict=True)]


def drawn(*numbers: int) -> list[tuple[bytes, str]]:
    return [(picture(number).numpy().tobytes(), FRUITS[number % 3]) for number in numbers]


def test_a_folder_with_train_and_test_is_split_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    draw_many(30, "train")
    draw_many(9, "test", first=30)
    (Path(MINE) / "LICENSE").touch()
    summary = run()
    assert (contents("train"), contents("test")) == (drawn(*range(30)), drawn(*range(30, 39)))
    assert split("train").card == split("test").card
    assert summary["data"] == split("train").card.model_dump(mode="json", exclude={"images_hash"})
    assert split("train").groups.tolist() == [*range(30)]
    assert split("train").test_counts == split("test").test_counts == (3, 3, 3)
    for name, count in (("train", 30), ("test", 9)):
        values = to_float(split(name).split.images)
        assert summary[name]["label_counts"] == dict.fromkeys(FRUITS, count // 3)
        assert summary[name]["pixel_mean"] == pytest.approx(values.mean().item(), abs=1e-6)
        assert summary[name]["pixel_deviation"] == pytest.approx(values.std().item(), abs=1e-6)
    told = capsys.readouterr().out
    assert "warning" not in told
    assert "LICENSE" in told


def test_a_hash_is_of_all_training_images_and_their_classes() -> None:
    draw_many(30, "train")
    draw_many(9, "test", first=30)
    found = []
    for change in (
        lambda: None,
        lambda: draw("test/fig/0030.png", 30, change=1),
        lambda: draw("train/fig/0000.png", 0, change=1),
        lambda: os.rename(f"{MINE}/train/fig/0003.png", f"{MINE}/train/no/0003.png"),
    ):
        change()
        run()
        assert split("train").card == split("test").card
        found.append(split("train").card.images_hash)
    assert found[0] == found[1]
    assert len({*found}) == 3


def test_about_a_share_is_held_out_and_neither_new_images_nor_other_params_move_one() -> None:
    draw_many(200)
    summary = run()
    before = {name: contents(name) for name in ("train", "test")}
    assert sorted(before["train"] + before["test"]) == sorted(drawn(*range(200)))
    assert 6 <= len(before["test"]) == summary["test"]["images"] <= 20 + 4 * 4.2  # binomial
    run(image_size=[8, 8], colour=False)
    held_out = [number for number in range(200) if drawn(number)[0] in before["test"]]
    grey = [Image.fromarray(picture(number).numpy()[4:12]).convert("L").tobytes() for number in held_out]
    assert sorted(levels for levels, _ in contents("test")) == sorted(grey)
    draw("fig/another.png", 1000)
    os.rename(f"{MINE}/no/0001.png", f"{MINE}/no/renamed.png")
    run()
    for name, images in before.items():
        assert {*contents(name)} - {(picture(1000).numpy().tobytes(), "fig")} == {*images}


def test_near_duplicates_are_on_one_side_and_held_out_as_often_as_others(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(600):
        draw(f"no/{number:04d}.png", number // 4, change=number % 4)
    summary = run()
    assert (summary["with_near_duplicates"], summary["equal_in_both"], summary["near_in_both"]) == (450, 0, 0)
    assert summary["test"]["images"] / 4 in [*range(1, 30)]  # of 150 groups, 15 +- 4 x 3.7
    assert "450 images" in capsys.readouterr().out
    for name in ("train", "test"):
        _, (images, _), groups, _ = split(name)
        assert (images.int() - images[groups].int()).abs().max() <= 3


def test_test_images_that_are_or_resemble_training_images_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    draw_many(30, "train")
    draw_many(9, "test", first=30)
    draw("train/fig/again.png", 3)  # of a training image: in both are test images alone
    for number in range(5):
        draw(f"test/{FRUITS[number % 3]}/also{number}.png", number, change=int(number >= 2))
    summary = run()
    found = [summary[name] for name in ("equal_in_both", "near_in_both", "with_near_duplicates")]
    assert found == [2, 5, 1]
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert " 5 test images" in told


def test_a_picture_in_two_classes_is_told_with_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    draw_many(200)
    for number in (0, 3, 6):  # figs
        draw(f"no/also{number}.png", number)
    draw("red apple/also.png", 3)  # in three classes
    assert run()["in_two_classes"] == 3
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "more than one class" in line]
    assert " 3 images" in told
    assert all(f"{MINE}/{name}" in told for name in ("fig/0000.png", "no/also0.png", "fig/0003.png"))


def test_pictures_that_dvc_ignores_are_refused() -> None:
    draw_many(60)
    Path(".dvcignore").write_text("fig/\n")
    Path("data/.dvcignore").write_text("0001.png\n")
    assert run()["train"]["images"]  # in no repository of DVC's
    Path(".dvc").mkdir()
    with pytest.raises(UserError, match=rf"^{MINE}/fig/0000\.png and 20 more images: [^\n]+$"):
        run()
    Path(".dvcignore").unlink()
    with pytest.raises(UserError, match=rf"^{MINE}/no/0001\.png: [^\n]+$"):
        run()
    Path("data/.dvcignore").unlink()
    assert run(set=f"data/../{MINE}")["train"]["images"]


def test_an_npz_file_is_an_input_and_the_range_of_its_values_is_in_both_cards() -> None:
    values = torch.stack([picture(number) for number in range(200)]).numpy().astype(np.uint16) * 16
    np.savez_compressed("data/mine.npz", images=values, labels=np.arange(200) % 3)
    summary = run(set="data/mine.npz")
    made = json.loads(Path("data/processed/train.provenance.json").read_bytes())
    assert made["inputs"] == {"data/mine.npz": sha256(Path("data/mine.npz"))}
    assert summary["data"] | {"name": "mine", "source_range": [0, 4095]} == summary["data"]
    assert split("train").card == split("test").card


def test_a_training_of_few_images_in_colour_begins_with_clip_art_and_no_other_knows_it() -> None:
    draw_many(60)
    for colour, start, contents in ((True, CLIP_ART, b"a model"), (False, SCRATCH, NONE)):
        assert run(colour=colour, image_size=32)["chosen"]["train.fine_tune_from"].startswith(f"{start}, since ")
        assert Path(CHOSEN).read_bytes() == contents
        made = json.loads(Path("data/processed/train.provenance.json").read_bytes())
        assert (CLIP_ART in made["inputs"]) == (start == CLIP_ART)
    few = preprocess.FEW
    assert [preprocess.start_for(count, (3, 32, 32))[0] for count in (few - 1, few)] == [CLIP_ART, SCRATCH]


def test_clip_art_is_chosen_for_the_sides_that_its_network_fits() -> None:
    model, sides = ModelParams(**read_yaml(ROOT / "params.yaml")["model"]), (16, 20, 36, 40)
    fits = [model.for_images((3, side, side)) == model.for_images((3, 32, 32)) for side in sides]
    found = [preprocess.start_for(60, (3, side, side))[0] == CLIP_ART for side in sides]
    assert found == fits == [False, True, True, False]


@pytest.mark.parametrize(("train", "test"), [(9, 9), (30, 5)])
def test_too_few_images_are_refused(train: int, test: int) -> None:
    draw_many(train, "train")
    draw_many(test, "test", first=train)
    with pytest.raises(UserError, match=rf"^data\.set: {MINE} .*[^0-9]$"):
        run()
    assert not [*Path("data/processed").iterdir()]


def test_a_class_of_which_all_would_be_held_out_is_refused() -> None:
    draw_many(200)
    for number in (300, 301):  # both files have hashes below a half
        draw(f"pear/{number}.bmp", number)
    with pytest.raises(UserError, match=r"^data\.set: .* pear; "):
        run(test=0.5)
    assert not [*Path("data/processed").iterdir()]
