"""README names what its pictures and numbers were made by."""

import json
from pathlib import Path

from exact_stages.files import read_yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_samplers_of_the_pictures_are_named() -> None:
    first, _, plotted = " ".join((ROOT / "README.md").read_text().split()).partition("## A first sample")
    params = read_yaml(ROOT / "params.yaml")
    gallery, population = (params["sample"][name] for name in ("gallery", "population"))
    assert (gallery["sampler"], gallery["steps"], population["sampler"]) == ("ddpm", None, "dpmpp_2m")
    assert f"{params['schedule']['timesteps']:,} ancestral steps" in first
    assert f"{population['steps']} steps of DPM-Solver++" in first
    of_plot = read_yaml(ROOT / "results/plain_ddpm/params.yaml")["sample"]["population"]
    assert of_plot["sampler"] == "dpmpp_2m"
    assert f"{of_plot['steps']} of DPM-Solver++" in plotted
    count = json.loads((ROOT / "metrics/evaluate/scores.json").read_text())["count"]
    assert f"{count:,} samples that the filter kept" in plotted
