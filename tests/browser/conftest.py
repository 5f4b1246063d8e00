"""A real browser; where there is none, the tests that ask for it are left out with a reason."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="drives a browser; pip install playwright")
    if not BROWSER:
        pytest.skip("no chromium; apt-get install chromium")
    with sync.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER)
        yield launched
        launched.close()
