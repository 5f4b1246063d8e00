"""The balanced folder: its pictures, its table, and that it is there whole or not at all."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddpm.balancing.filling import SPAN, Sample
from ddpm.balancing.folder import COLUMNS, write_folder
from ddpm.images.splits import Split
from tests.balancing.small_set import labels_of, noise
from tests.small import FRUITS

COUNTS, TESTED = (20, 3, 12), (2, 4, 0)
TRAIN_LABELS, TEST_LABELS = labels_of(COUNTS), labels_of(TESTED)
NUMBERS = torch.tensor([*range(SPAN, SPAN + 34, 2), *range(2 * SPAN, 2 * SPAN + 8)])  # 17 of one class, 8 of another
NEAREST = torch.tensor([int((label == TRAIN_LABELS).nonzero().max()) for label in (NUMBERS // SPAN).tolist()])
SHARES = torch.linspace(0.5, 0.999, 25)


def written(folder: Path, seed: int = 5) -> list[dict[str, str]]:
    folder.mkdir(exist_ok=True)
    train, test = Split(noise(35, 0), TRAIN_LABELS), Split(noise(6, 1), TEST_LABELS)
    facts = NUMBERS, SHARES, NEAREST, SHARES / 10
    samples = [Sample(*each) for each in zip(noise(25, 2), *(values.tolist() for values in facts), strict=True)]
    settings: dict[str, Any] = {"seed": seed, "sha256": {"model": "abc123"}}
    write_folder(folder, FRUITS, train, test, samples, settings)
    assert json.loads((folder / "balance.json").read_text()) == settings
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def test_all_pictures_are_there_and_the_table_says_what_they_are(tmp_path: Path) -> None:
    rows = written(tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert (list(rows[0]), sorted(row["file"] for row in rows)) == (list(COLUMNS), files)
    for row in rows:
        assert row["file"].split("/")[1] == row["class"]
    real = [row for row in rows if row["origin"] == "real"]
    given = zip(torch.cat([TRAIN_LABELS, TEST_LABELS]).tolist(), torch.cat([noise(35, 0), noise(6, 1)]), strict=True)
    expected = sorted((FRUITS.classes[label], image.numpy().tobytes()) for label, image in given)
    assert sorted((row["class"], pixels(tmp_path / row["file"])) for row in real) == expected
    sampled = {int(row["index"]): row for row in rows if row["origin"] == "sampled"}
    assert sorted(sampled) == NUMBERS.tolist()
    row = sampled[SPAN + 4]  # the third
    assert pixels(tmp_path / row["file"]) == noise(25, 2)[2].numpy().tobytes()
    assert pixels(tmp_path / row["nearest"]) == noise(35, 0)[NEAREST[2]].numpy().tobytes()
    facts = ("fig", "5", f"{SHARES[2]:.6f}", f"{SHARES[2] / 10:.6f}", "abc123")
    assert tuple(row[each] for each in ("class", "seed", "probability", "distance", "model")) == facts


def pixels(path: Path) -> bytes:
    """The levels of a picture, the red ones first."""
    return np.array(Image.open(path)).transpose(2, 0, 1).tobytes()


def test_names_and_places_do_not_tell_real_from_sampled(tmp_path: Path) -> None:
    rows, others = (
        [row for row in written(tmp_path / str(seed), seed=seed) if row["file"].startswith("train/fig/")]
        for seed in (5, 6)
    )
    assert [row["file"] for row in rows] == [f"train/fig/{place:06d}.png" for place in range(20)]
    order = [row["origin"] for row in rows]
    assert "real" not in (order[0], order[-1])  # by this seed
    assert [row["origin"] for row in others] != order
