"""The balanced folder: its pictures, its table, and that it is there whole or not at all."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.balancing.filling import SPAN, Accepted
from ddpm.balancing.folder import COLUMNS, whole, write_folder
from ddpm.images.card import DataCard
from ddpm.images.splits import Split
from ddpm.ingest.folders import read_folder
from ddpm.pipeline.console import UserError
from tests.balancing.small_set import labels_of, noise
from tests.small import DIGITS, FRUITS

COUNTS, TESTED = (20, 3, 12), (2, 4, 0)


class Contents(NamedTuple):
    """What is written, by the arguments of `write_folder`."""

    card: DataCard
    train: Split
    test: Split
    accepted: Accepted
    settings: dict[str, Any]


def contents_of(card: DataCard = FRUITS, seed: int = 5) -> Contents:
    """Seventeen sampled figs and eight sampled pears, all nearest to the last real one of their class."""
    train = Split(noise(sum(COUNTS), 0, card), labels_of(COUNTS))
    test = Split(noise(sum(TESTED), 1, card), labels_of(TESTED))
    numbers = torch.tensor([*range(SPAN, SPAN + 34, 2), *range(2 * SPAN, 2 * SPAN + 8)])
    last = {label: int((train.labels == label).nonzero().max()) for label in (1, 2)}
    nearest = torch.tensor([last[label] for label in (numbers // SPAN).tolist()])
    shares = torch.linspace(0.5, 0.999, 25)
    accepted = Accepted(noise(25, 2, card), numbers, shares, nearest, shares / 10)
    return Contents(card, train, test, accepted, {"seed": seed, "sha256": {"model": "abc123"}})


def written(folder: Path, contents: Contents) -> list[dict[str, str]]:
    """The rows of the table."""
    folder.mkdir(exist_ok=True)
    write_folder(folder, *contents)
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def pixels(path: Path) -> Tensor:
    array = np.array(Image.open(path))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


@pytest.mark.parametrize("card", [FRUITS, DIGITS.model_copy(update={"classes": ("a", "7", "NA, 'x'")})], ids=str)
def test_all_pictures_are_there_in_one_format_and_the_table_says_what_they_are(card: DataCard, tmp_path: Path) -> None:
    contents = contents_of(card)
    rows = written(tmp_path, contents)
    assert list(rows[0]) == list(COLUMNS)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert sorted(row["file"] for row in rows) == files
    assert len(files) == 35 + 25 + 6
    pictures = [Image.open(tmp_path / file) for file in files]
    mode = "RGB" if card is FRUITS else "L"
    assert {(each.format, each.mode, each.size) for each in pictures} == {("PNG", mode, card.shape[:0:-1])}
    for split, real in (("train", contents.train), ("test", contents.test)):
        for label, name in enumerate(card.classes):
            found = [
                pixels(tmp_path / row["file"]).numpy().tobytes()
                for row in rows
                if row["file"].startswith(f"{split}/") and row["class"] == name and row["origin"] == "real"
            ]
            assert sorted(found) == sorted(image.numpy().tobytes() for image in real.images[real.labels == label])
    assert {row["class"] for row in rows} == {*card.classes}
    assert {tuple(row[name] for name in COLUMNS[3:]) for row in rows if row["origin"] == "real"} == {("",) * 6}
    assert all(row["file"].split("/")[1] == row["class"] for row in rows)
    assert json.loads((tmp_path / "balance.json").read_text()) == contents.settings


def test_a_sampled_image_is_found_and_could_be_sampled_again(tmp_path: Path) -> None:
    contents = contents_of()
    rows = {int(row["index"]): row for row in written(tmp_path, contents) if row["origin"] == "sampled"}
    assert sorted(rows) == contents.accepted.numbers.tolist()
    for number, image, share, nearest, distance in zip(
        contents.accepted.numbers.tolist(),
        contents.accepted.images,
        contents.accepted.probability.tolist(),
        contents.accepted.nearest.tolist(),
        contents.accepted.distance.tolist(),
        strict=True,
    ):
        row = rows[number]
        assert torch.equal(pixels(tmp_path / row["file"]), image)
        assert row["class"] == FRUITS.classes[number // SPAN]
        assert (row["seed"], row["model"]) == ("5", "abc123")
        assert (row["probability"], row["distance"]) == (f"{share:.6f}", f"{distance:.6f}")
        assert torch.equal(pixels(tmp_path / row["nearest"]), contents.train.images[nearest])


def test_names_and_places_do_not_tell_real_from_sampled(tmp_path: Path) -> None:
    rows = [row for row in written(tmp_path, contents_of()) if row["file"].startswith("train/fig/")]
    assert [row["file"] for row in rows] == [f"train/fig/{place:06d}.png" for place in range(20)]
    order = [row["origin"] for row in rows]
    assert order.count("real") == 3
    assert "real" not in (order[0], order[-1])  # by this seed
    indices = [int(row["index"]) for row in rows if row["origin"] == "sampled"]
    assert indices != sorted(indices)
    others = written(tmp_path / "other", contents_of(seed=6))
    assert [row["origin"] for row in others if row["file"].startswith("train/fig/")] != order


def test_it_is_a_folder_of_images_to_the_pipeline(tmp_path: Path) -> None:
    written(tmp_path, contents_of())
    folder = read_folder(tmp_path)
    assert folder.classes == ("apple", "fig", "pear")
    assert [sum(each.label == label for each in folder.train) for label in range(3)] == [20, 20, 20]
    assert folder.test is not None
    assert [sum(each.label == label for each in folder.test) for label in range(3)] == [2, 4, 0]
    assert folder.ignored == [Path("balance.json"), Path("manifest.csv")]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with whole(tmp_path / "out") as folder:
            (folder / "file").touch()
            raise UserError("enough")

    with pytest.raises(UserError, match=r"^enough$"):
        fail()
    assert [*tmp_path.iterdir()] == []


def test_it_takes_its_place_when_it_is_whole_beside_others_and_all_may_read_it(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    for each in (out, other):
        each.mkdir()
    with whole(out) as folder:
        (folder / "file").touch()
        assert not any(out.iterdir())
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "other", "out"]
    assert out.stat().st_mode == other.stat().st_mode
