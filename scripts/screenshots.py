"""Make the screenshots of the report and the demo, docs/pictures/report.png and demo.png.

    python -m scripts.screenshots

The pages are 800 pixels wide; report.png shows the samples of the workspace. The demo samples with the model of `make
demo`. This needs Chromium, and what `make report`, `make demo` and `make test` install.
"""

import shutil
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from exact_stages.console import UserError, run
from exact_stages.files import write_whole
from scripts import demo
from scripts.report import REPORT
from scripts.reporting import page
from scripts.reporting.runs import open_run

OUT, WIDTH, MOST_HEIGHT = Path("docs/pictures"), 800, 1000  # pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRAWN, SAMPLED = "#training .chart:last-of-type svg", "#status:has-text('steps in')"  # elements of complete pages


def main() -> None:
    """Write both files.

    Raises:
        UserError: there is no browser, or the report or the demo cannot be made.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError("chromium: not installed; apt-get install chromium")
    workspace = open_run("")
    write_whole(REPORT, page.report([workspace], workspace).encode())
    demo.main([], demo.OUT, 0, serve=False)
    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, demo.server(demo.OUT, 0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        launched = playwright.chromium.launch(executable_path=browser)
        show(launched, "report", REPORT.resolve().as_uri(), DRAWN, "#samples")
        show(launched, "demo", f"http://127.0.0.1:{listening.server_port}/", SAMPLED, "body", {"#step": "9"})
        launched.close()
        listening.shutdown()


def show(browser: Any, name: str, address: str, ready: str, part: str, fields: dict[str, str] | None = None) -> None:
    """Save a part of a page as OUT/name.png.

    Args:
        ready: selects an element that exists when the page is complete.
        part: selects the part, which is cut off at MOST_HEIGHT.
        fields: values to fill in, by selector.
    """
    tab = browser.new_page(viewport={"width": WIDTH, "height": WIDTH}, color_scheme="light")
    tab.goto(address)
    tab.wait_for_selector(ready)
    for field, value in (fields or {}).items():
        tab.locator(field).fill(value)
    path, box = OUT / f"{name}.png", tab.locator(part).bounding_box()
    height = min(box["height"], MOST_HEIGHT)
    tab.screenshot(path=path, full_page=True, clip={"x": 0, "y": box["y"], "width": WIDTH, "height": height})
    tab.close()
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    run(main)
