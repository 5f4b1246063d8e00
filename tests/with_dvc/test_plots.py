"""The plots page: every declared curve and picture, of the workspace and of an experiment beside its parent."""

import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from ruamel.yaml import YAML

from tests.with_dvc.dvc_clone import PICTURES, Built, Clone, table

pytestmark = pytest.mark.pipeline


class Curve(NamedTuple):
    """A plot of columns of csv files, as dvc.yaml declares it."""

    title: str
    x: str
    y: dict[str, str]  # the column by file


def declared_curves(clone: Clone) -> list[Curve]:
    """Those at the top level of dvc.yaml, and those of the stages, but for distillation, of which there is none."""
    pipeline = YAML(typ="safe").load(clone.path / "dvc.yaml")
    stages = [stage for name, stage in pipeline["stages"].items() if name != "distill"]
    entries = [next(iter(each.items())) for each in pipeline["plots"]]
    entries += [next(iter(plot.items())) for stage in stages for plot in stage.get("plots", [])]
    given = [
        (plot, plot["y"] if isinstance(plot["y"], dict) else {name: plot["y"]}) for name, plot in entries if "y" in plot
    ]
    return [Curve(plot["title"], plot["x"], y) for plot, y in given]


def plots_page(clone: Clone, *command: str) -> str:
    page = re.search(r"^file://(.+)$", clone.dvc("plots", *command), re.MULTILINE)
    assert page
    return Path(page[1]).read_text()


def titles(page: str) -> list[str]:
    """The titles of the curves on a plots page."""
    return sorted({json.loads(text) for text in re.findall(r'"title": {"text": ("(?:[^"\\]|\\.)*")', page)})


def test_curves_have_the_columns_that_the_plots_name(pipeline: Built) -> None:
    curves = declared_curves(pipeline.clone)
    assert len(curves) >= 5
    for _, x, y in curves:
        for file, column in y.items():
            rows = table(pipeline.clone.path / file)
            assert rows
            assert all(math.isfinite(float(row[name])) for row in rows for name in (x, column)), file


def test_the_page_has_every_curve_and_picture(clone: Clone) -> None:
    page = plots_page(clone, "show")
    assert titles(page) == sorted(curve.title for curve in declared_curves(clone))
    for name in PICTURES:
        link = f"static/workspace_{name.replace('/', '_')}"
        assert link in page
        assert (clone.path / "dvc_plots" / link).read_bytes() == (clone.path / name).read_bytes()


def test_without_validation_images_no_cell_is_empty(clone: Clone) -> None:
    clone.edit_params({"train.validation": 0})
    clone.run("python", "-m", "stages.train")
    rows = {path.name: table(path) for path in (clone.path / "metrics/train").glob("*.csv")}
    cells = [cell for filled in rows.values() for row in filled for cell in row.values()]
    assert "" not in cells, "DVC's plots show an empty cell as zero"
    assert {name for name, filled in rows.items() if filled} == {"loss.csv", "loss_by_timestep.csv"}
    shown = [curve.title for curve in declared_curves(clone) if any(table(clone.path / file) for file in curve.y)]
    assert titles(plots_page(clone, "show")) == sorted(shown), "an empty file leaves its plot out and harms no other"
