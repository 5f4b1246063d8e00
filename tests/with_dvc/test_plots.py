"""DVC's plots page in a browser: offline it has every declared curve and picture."""

from collections.abc import Callable
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.with_dvc.dvc_clone import PICTURES, Clone

pytestmark = [pytest.mark.pipeline, pytest.mark.long]


def curves(clone: Clone) -> list[str]:
    """The titles of all plots of columns that dvc.yaml declares, but for distillation, of which there is none."""
    declared = YAML(typ="safe").load(clone.path / "dvc.yaml")
    stages = [stage for name, stage in declared["stages"].items() if name != "distill"]
    plots = [next(iter(each.items())) for each in declared["plots"]]
    plots += [next(iter(plot.items())) for stage in stages for plot in stage.get("plots", [])]
    return sorted(plot["title"] for _, plot in plots if "y" in plot)


def test_every_curve_and_picture_is_there_offline(visit: Callable[..., Any], clone: Clone) -> None:
    clone.run("python", "-m", "scripts.plots_page", PYTHONPATH="src")
    clone.dvc("plots", "show", "--html-template", "build/plots.html")
    page = visit((clone.path / "dvc_plots/index.html").as_uri())
    titles = curves(clone)
    page.wait_for_function(f"document.querySelectorAll('.vega-embed svg.marks').length >= {len(titles)}")
    assert sorted({*page.locator(".role-title-text").all_text_contents()}) == titles
    sizes = page.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth)")
    assert len(sizes) >= len(PICTURES)
    assert min(sizes) > 0


def test_the_name_of_a_branch_is_no_script(browser: Any, clone: Clone) -> None:
    name = "</script></template><script>taken=1</script>"
    clone.git("branch", name)
    clone.append("metrics/train/loss.csv", "99,0.75")
    clone.run("python", "-m", "scripts.plots_page", PYTHONPATH="src")
    clone.dvc("plots", "diff", name, "--html-template", "build/plots.html", "--targets", "metrics/train/loss.csv")
    assert name in (clone.path / "dvc_plots/index.html").read_text()
    page = browser.new_page()
    page.goto((clone.path / "dvc_plots/index.html").as_uri())
    page.wait_for_selector("body > div", state="attached")
    assert page.evaluate("typeof taken") == "undefined"
    page.close()
