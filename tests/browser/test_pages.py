"""The report and DVC's own plots page in a browser: nothing is fetched, curves are drawn, and all can be read."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor

from scripts import plots_page
from scripts.reporting import page
from tests.browser.runs import whole_run

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
SMALL_TEXT = """[...document.querySelectorAll('p, a, td, th, small, summary, figcaption, svg text')]
    .filter(each => each.getClientRects().length && parseFloat(getComputedStyle(each).fontSize) < 12)
    .map(each => each.textContent)"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs; all that can be folded is open."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    html = page.report([whole_run(), whole_run("other", shade=40)], None)
    file.write_text(html.replace("<details", "<details open"))
    return file


def opened(browser: Any, file: Path, said: list[str], width: int = 1400, scheme: str = "light") -> Any:
    """The page with its curves; `said` gets what it asks of the network, its errors and its messages on the console."""
    found = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    found.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: said.append(str(error)))
    found.on("requestfailed", lambda request: said.append(request.url))
    found.on(
        "request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url)
    )
    found.context.set_offline(True)
    found.goto(file.as_uri())
    found.wait_for_function("document.querySelectorAll('.chart, .vega-embed').length > 0")
    found.wait_for_function("[...document.querySelectorAll('.chart')].every(each => each.querySelector('svg'))")
    return found


def pixels(element: Any, colour: str) -> int:
    """How many pixels of an element are nearly of this colour."""
    picture = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    wanted = ImageColor.getrgb(colour)
    counts = picture.getcolors(picture.width * picture.height) or []
    return sum(n for n, seen in counts if max(abs(a - b) for a, b in zip(seen, wanted, strict=True)) < 24)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_report_can_be_read(browser: Any, written: Path, width: int, scheme: str) -> None:
    said: list[str] = []
    found = opened(browser, written, said, width, scheme)
    assert found.evaluate("document.documentElement.scrollWidth") == width, "what is wide scrolls in itself"
    assert found.evaluate(SMALL_TEXT) == []
    broken = axe.Axe().run(found).response["violations"]  # contrast, alternative texts, headings, names, ...
    assert [(each["id"], each["nodes"][0]["html"]) for each in broken] == []
    assert all(found.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth > 0 && each.alt !== '')"))
    labels = found.eval_on_selector_all(".chart > div", "all => all.map(each => each.getAttribute('aria-label') || '')")
    assert len(labels) == 6
    assert all(": " in label for label in labels)
    assert said == []
    found.close()


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def dvc(*arguments: str) -> None:
    call(sys.executable, "-m", "dvc", *arguments)


@pytest.fixture
def plotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository with a curve and a picture, and the template for DVC's plots."""
    monkeypatch.chdir(tmp_path)
    call("git", "init", "--quiet")
    dvc("init", "--quiet")
    dvc("config", "core.analytics", "false")
    Path("loss.csv").write_text("step,loss\n0,1\n10,0.5\n20,0.25\n")
    Image.new("L", (8, 8)).save("picture.png")
    Path("dvc.yaml").write_text("plots: [{loss.csv: {x: step, y: loss}}, picture.png: {}]\n")
    plots_page.main()


@pytest.mark.long
@pytest.mark.usefixtures("plotted")
def test_dvc_plots_work_offline(browser: Any, tmp_path: Path) -> None:
    dvc("plots", "show", "--html-template", str(plots_page.PAGE))
    said: list[str] = []
    found = opened(browser, tmp_path / "dvc_plots/index.html", said)
    svg = found.wait_for_selector(".vega-embed svg.marks")
    assert pixels(svg, "#945dd6") > 200, "the first colour of DVC's own templates"
    assert said == []
    found.close()


@pytest.mark.long
@pytest.mark.usefixtures("plotted")
@pytest.mark.parametrize("end", ["</script>", "</script></template>"])
def test_the_name_of_a_branch_is_no_script_of_dvc_plots(browser: Any, tmp_path: Path, end: str) -> None:
    name = f"{end}<script>taken=1</script>"
    call("git", "add", "--all")
    call("git", "-c", "user.name=a", "-c", "user.email=a", "commit", "--quiet", "-m", "a")
    call("git", "branch", name)
    Path("loss.csv").write_text("step,loss\n0,1\n10,0.75\n")
    dvc("plots", "diff", name, "--html-template", str(plots_page.PAGE))
    assert f"<p>{name}</p>" in Path("dvc_plots/index.html").read_text()
    found = browser.new_page()
    found.goto((tmp_path / "dvc_plots/index.html").as_uri())
    found.wait_for_selector("body > div")
    assert found.evaluate("typeof taken") == "undefined"
    found.close()
