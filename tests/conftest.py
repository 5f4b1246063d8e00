"""One process and one thread for each test process; a test that needs several asks for them.

Those that fight over the cores would wait for one another most of the time.

A real browser; where there is none, the tests that ask for it are left out with a reason.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "DDPM_WORKERS": "1"}  # read when torch is imported, so before anything else is

import shutil
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ddpm.processes.exchange import FORK
from ddpm.processes.workers import set_workers

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session", autouse=True)
def _export_in_a_process_of_its_own() -> Iterator[None]:
    """In torch 2.15 for CUDA, an export keeps later forks of its process from training."""
    export = torch.onnx.export

    def apart(*args: Any, **options: Any) -> SimpleNamespace:
        import onnx

        receiver, sender = FORK.Pipe(duplex=False)
        work = FORK.Process(target=lambda: sender.send_bytes(export(*args, **options).model_proto.SerializeToString()))
        work.start()
        sender.close()
        proto = onnx.load_model_from_string(receiver.recv_bytes())
        work.join()
        return SimpleNamespace(model_proto=proto)

    torch.onnx.export = apart
    yield
    torch.onnx.export = export


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="drives a browser; pip install playwright")
    if not BROWSER:
        pytest.skip("no chromium; apt-get install chromium")
    with sync.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER)
        yield launched
        launched.close()


@pytest.fixture
def allowed() -> Iterator[Callable[[int], None]]:
    """Lets so many processes work, until the test ends."""
    yield set_workers
    set_workers(1)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; at the end, none has said an error, or asked another host for anything."""
    said, pages = list[str](), list[Any]()

    def visit(url: str, width: int = 1400, scheme: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        here = ("data:", url.rpartition("/")[0])
        page.on("request", lambda request: None if request.url.startswith(here) else said.append(request.url))
        page.goto(url)
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert said == []
