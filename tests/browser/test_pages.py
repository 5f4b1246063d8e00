"""The report and DVC's own plots page in a browser: nothing is fetched, curves are drawn, and all can be read."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from scripts.reporting import page
from tests.browser.runs import whole_run
from tests.with_dvc.conftest import clone, pipeline  # noqa: F401
from tests.with_dvc.dvc_clone import PICTURES, Clone, table

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")


def opened(browser: Any, file: Path, said: list[str], width: int = 1400, scheme: str = "light") -> Any:
    """The page; `said` gets what it asks of the network, its errors and its messages on the console."""
    found = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    found.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: said.append(str(error)))
    found.on("requestfailed", lambda request: said.append(request.url))
    found.on("request", lambda each: None if each.url.startswith(("file:", "data:")) else said.append(each.url))
    found.context.set_offline(True)
    found.goto(file.as_uri())
    return found


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1400, "dark")])
def test_report_can_be_read(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    file, said = tmp_path / "report.html", list[str]()
    html = page.report([whole_run(), whole_run("other", shade=40)], None)
    file.write_text(html.replace("<details", "<details open"))
    found = opened(browser, file, said, width, scheme)
    found.wait_for_function("[...document.querySelectorAll('.chart')].every(each => each.querySelector('svg'))")
    assert found.locator(".chart svg").count() >= 7
    assert found.evaluate("document.documentElement.scrollWidth") == width, "what is wide scrolls in itself"
    broken = axe.Axe().run(found).response["violations"]  # contrast, alternative texts, headings, names, ...
    assert [(each["id"], each["nodes"][0]["html"]) for each in broken] == []
    assert all(found.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth > 0 && each.alt !== '')"))
    assert said == []
    found.close()


def curves(clone: Clone) -> list[str]:  # noqa: F811
    """The titles of all plots of columns that dvc.yaml declares, but for distillation, of which there is none."""
    declared = YAML(typ="safe").load(clone.path / "dvc.yaml")
    stages = [stage for name, stage in declared["stages"].items() if name != "distill"]
    plots = [next(iter(each.items())) for each in declared["plots"]]
    plots += [next(iter(plot.items())) for stage in stages for plot in stage.get("plots", [])]
    return sorted(plot["title"] for _, plot in plots if "y" in plot)


@pytest.mark.pipeline
@pytest.mark.long
def test_dvc_plots_work_offline_and_the_name_of_a_branch_is_no_script(browser: Any, clone: Clone) -> None:  # noqa: F811
    clone.run("python", "-m", "scripts.plots_page", PYTHONPATH="src")
    clone.dvc("plots", "show", "--html-template", "build/plots.html")
    said: list[str] = []
    found = opened(browser, clone.path / "dvc_plots/index.html", said)
    found.wait_for_selector(".vega-embed svg.marks")
    titles = curves(clone)
    found.wait_for_function(f"document.querySelectorAll('.vega-embed svg.marks').length >= {len(titles)}")
    drawn = found.locator(".role-title-text").all_inner_texts()
    assert sorted({each.strip() for each in drawn}) == titles
    assert found.locator("img").count() >= len(PICTURES)
    assert all(found.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth > 0)"))
    assert said == []
    found.close()

    name = "</script></template><script>taken=1</script>"
    clone.git("branch", name)
    clone.append("metrics/train/loss.csv", "99,0.75")
    clone.dvc("plots", "diff", name, "--html-template", "build/plots.html", "--targets", "metrics/train/loss.csv")
    assert name in (clone.path / "dvc_plots/index.html").read_text()
    found = opened(browser, clone.path / "dvc_plots/index.html", said)
    found.wait_for_selector("body > div")
    assert found.evaluate("typeof taken") == "undefined"
    found.close()


@pytest.mark.pipeline
@pytest.mark.long
def test_without_validation_images_no_cell_is_empty(clone: Clone) -> None:  # noqa: F811
    clone.edit_params({"train.validation": 0})
    clone.run("python", "-m", "stages.train")
    rows = {path.name: table(path) for path in (clone.path / "metrics/train").glob("*.csv")}
    assert {name for name, filled in rows.items() if filled} == {"loss.csv", "loss_by_timestep.csv"}
    cells = [cell for filled in rows.values() for row in filled for cell in row.values()]
    assert "" not in cells, "DVC's plots show an empty cell as zero"
