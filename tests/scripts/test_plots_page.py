"""The template of DVC's plots in a browser: curves are drawn offline, and the name of a branch is no script."""

from collections.abc import Callable
from typing import Any

import pytest

from scripts import plots_page
from tests.with_dvc.dvc_clone import Clone

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
BRANCH = "</script></template><script>taken=1</script>"


def test_curves_are_drawn_offline_and_no_branch_is_run(visit: Callable[..., Any], browser: Any, clone: Clone) -> None:
    (clone.path / "loss.csv").write_text("step,loss\n1,0.5\n2,0.25\n")
    clone.commit()
    clone.git("branch", BRANCH)
    (clone.path / "loss.csv").write_text("step,loss\n1,0.5\n2,0.125\n")
    plots_page.main()
    file = clone.path / "dvc_plots/index.html"
    for name in ("HEAD", BRANCH):
        clone.dvc("plots", "diff", name, "--html-template", str(plots_page.PAGE), "--targets", "loss.csv")
        assert name in file.read_text()
        if name == "HEAD":
            visit(file.as_uri()).wait_for_selector(".vega-embed svg.marks")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector("body > div", state="attached")
    assert page.evaluate("typeof taken") == "undefined"
    page.close()
