"""README: its scores are those in metrics/, and its pictures those that the script makes, small enough to load."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from exact_stages.params import read_yaml
from scripts import readme
from scripts.reporting.runs import Run

ROOT = Path(__file__).resolve().parents[2]
METRICS = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (ROOT / "metrics").rglob("*.json")}


def score(*keys: str) -> float:
    found = json.loads(METRICS["metrics/evaluate/scores.json"])
    for key in keys:
        found = found[key]
    return float(found)


def test_the_table_has_the_scores_of_metrics() -> None:
    text = (ROOT / "README.md").read_text()
    assert readme.filled(text, readme.table(Run("workspace", METRICS))) == text, "python -m scripts.readme writes it"
    cells = [line.split("|")[2] for line in text.partition(readme.BEGIN)[2].splitlines()[2:4]]
    assert float(cells[0].split("±")[0]) == pytest.approx(score("b", "samples", "frechet"), abs=5e-4)
    assert float(cells[1].strip(" %")) / 100 == pytest.approx(score("samples", "label_accuracy"), abs=5e-4)


def test_the_samplers_of_the_pictures_are_named() -> None:
    first, _, plotted = (ROOT / "README.md").read_text().partition("## A first sample")
    params = read_yaml(ROOT / "params.yaml")
    gallery, population = (params["sample"][name] for name in ("gallery", "population"))
    assert (gallery["sampler"], gallery["steps"], population["sampler"]) == ("ddpm", None, "dpmpp_2m")
    assert f"{params['schedule']['timesteps']:,} ancestral steps" in first
    assert f"{population['steps']} steps of\nDPM-Solver++" in first
    of_plot = read_yaml(ROOT / "results/article/params.yaml")["sample"]["population"]
    assert of_plot["sampler"] == "dpmpp_2m"
    assert f"{of_plot['steps']} of DPM-Solver++" in plotted


def test_only_what_is_between_the_markers_is_replaced() -> None:
    text = f"before\n{readme.BEGIN}old\n{readme.END}\nafter"
    assert readme.filled(text, "new \\1\n") == f"before\n{readme.BEGIN}new \\1\n{readme.END}\nafter"


def test_the_plot_is_that_of_the_record() -> None:
    rows = pd.read_csv(ROOT / readme.MEASURED)
    with Image.open(ROOT / readme.PICTURES / "quality.png") as kept:
        with Image.open(io.BytesIO(readme.quality(rows))) as made:
            assert made.size == kept.size
            assert made.tobytes() == kept.tobytes()
        moved = rows.assign(frechet_b=2 * rows["frechet_b"])
        with Image.open(io.BytesIO(readme.quality(moved))) as made:
            assert made.tobytes() != kept.tobytes()


def test_the_pictures_of_samples() -> None:
    labels = torch.tensor([2, 0, 2, 1, 0, 1] * 4)
    images = torch.full((24, 1, 8, 8), 100, dtype=torch.uint8) + labels.to(torch.uint8).reshape(-1, 1, 1, 1)
    with Image.open(io.BytesIO(readme.samples(images, labels))) as still:
        columns = [still.getpixel((readme.SCALE * (readme.GAP + (8 + readme.GAP) * each), 10)) for each in range(3)]
        assert columns == [100, 101, 102]
    frames = torch.zeros(2, 24, 1, 8, 8, dtype=torch.uint8)
    gallery = {"labels": labels, "x_t": frames, "pred_x_start": frames + 255}
    data = readme.denoising(gallery, [900, 0])
    assert data == readme.denoising(gallery, [900, 0])
    with Image.open(io.BytesIO(data)) as moving:
        assert moving.n_frames == 2
        assert moving.width == readme.NAMES + readme.SCALE * (3 * (8 + readme.GAP) + readme.GAP)
    assert (ROOT / readme.PICTURES / "denoising.gif").stat().st_size <= 500_000
