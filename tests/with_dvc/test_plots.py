"""The plots page: every declared curve and picture, of the workspace and of an experiment beside its parent."""

import json
import math
import re
from collections.abc import Iterator
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
    y: dict[str, list[str]]  # the columns by file


def declared_curves(clone: Clone) -> Iterator[Curve]:
    """Those at the top level of dvc.yaml, and those of the stages, but for distillation, of which there is none."""
    pipeline = YAML(typ="safe").load(clone.path / "dvc.yaml")
    stages = [stage for name, stage in pipeline["stages"].items() if name != "distill"]
    entries = [*pipeline["plots"], *(plot for stage in stages for plot in stage.get("plots", []))]
    for entry in entries:
        ((name, plot),) = entry.items() if isinstance(entry, dict) else ((entry, {}),)
        if "y" in plot:
            y = plot["y"] if isinstance(plot["y"], dict) else {name: plot["y"]}
            columns = {file: [names] if isinstance(names, str) else names for file, names in y.items()}
            yield Curve(plot["title"], plot["x"], columns)


def plots_page(clone: Clone, *command: str) -> str:
    page = re.search(r"^file://(.+)$", clone.dvc("plots", *command), re.MULTILINE)
    assert page
    return Path(page[1]).read_text()


def titles(page: str) -> set[str]:
    """The titles of the curves on a plots page."""
    return {json.loads(text) for text in re.findall(r'"title": {"text": ("(?:[^"\\]|\\.)*")', page)}


def declared_titles(clone: Clone) -> set[str]:
    return {curve.title for curve in declared_curves(clone)}


def test_curves_have_the_columns_that_the_plots_name(pipeline: Built) -> None:
    curves = list(declared_curves(pipeline.clone))
    assert len(curves) >= 5
    for _, x, y in curves:
        for file, columns in y.items():
            rows = table(pipeline.clone.path / file)
            assert {x, *columns} <= rows[0].keys(), file
            assert all(math.isfinite(float(row[column])) for row in rows for column in (x, *columns)), file


def test_without_validation_images_no_cell_is_empty(clone: Clone) -> None:
    clone.edit_params({"train.validation": 0})
    clone.run("python", "-m", "stages.train")
    rows = {path.name: table(path) for path in (clone.path / "metrics/train").glob("*.csv")}
    cells = [cell for filled in rows.values() for row in filled for cell in row.values()]
    assert "" not in cells, "DVC's plots show an empty cell as zero"
    assert {name for name, filled in rows.items() if filled} == {"loss.csv", "loss_by_timestep.csv"}
    shown = {curve.title for curve in declared_curves(clone) if any(table(clone.path / file) for file in curve.y)}
    assert titles(plots_page(clone, "show")) == shown, "an empty file leaves its plot out and harms no other"


def test_plots_page_has_every_curve_and_picture(clone: Clone) -> None:
    page = plots_page(clone, "show")
    assert titles(page) == declared_titles(clone)
    for name in PICTURES:
        link = f"static/workspace_{name.replace('/', '_')}"
        assert link in page
        assert (clone.path / "dvc_plots" / link).read_bytes() == (clone.path / name).read_bytes()


def test_curves_from_several_files_are_drawn_whole(clone: Clone) -> None:
    plots = json.loads(clone.dvc("plots", "show", "--json"))["data"].values()
    contents = {plot["content"]["title"]["text"]: plot["content"] for (plot,) in plots if plot["type"] == "vega"}
    shared = [curve for curve in declared_curves(clone) if len(curve.y) > 1]
    assert len(shared) == 2
    for curve in shared:
        points = contents[curve.title]["data"]["values"]
        drawn = [(point["filename::field"], point[curve.x], point["dvc_inferred_y_value"]) for point in points]
        assert drawn == [
            (f"{Path(file).name}::{column}", row[curve.x], row[column])
            for file, columns in curve.y.items()
            for column in columns
            for row in table(clone.path / file)
        ]


def test_experiment_is_drawn_beside_its_parent(tried: Clone) -> None:
    page = plots_page(tried, "diff", "HEAD", "workspace")
    assert titles(page) == declared_titles(tried)
    assert '"domain": ["workspace", "HEAD"]' in page
    for revision in ("HEAD", "workspace"):
        assert f"static/{revision}_metrics_evaluate_samples.png" in page
