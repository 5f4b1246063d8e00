"""The report in a browser: nothing is fetched, and all can be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.reporting import page
from tests.browser.runs import whole_run

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1400, "dark")])
def test_report_can_be_read(visit: Callable[..., Any], tmp_path: Path, width: int, scheme: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(page.report([whole_run(), whole_run("other", shade=40)]))
    found = visit(file.as_uri(), width, scheme)
    assert found.evaluate("document.documentElement.scrollWidth") == width, "what is wide scrolls in itself"
    broken = axe.Axe().run(found).response["violations"]  # contrast, alternative texts, headings, names, ...
    assert [(each["id"], each["nodes"][0]["html"]) for each in broken] == []
    assert all(found.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth > 0 && each.alt !== '')"))
