"""The demo in a browser: the picture is Python's, given the same noise, and all on the page can be used."""

import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.model import load_model
from ddpm.diffusion.sample import p_sample_loop
from ddpm.diffusion.sets import OF_STEP, guided_denoiser, visited
from ddpm.images.splits import to_uint8
from ddpm.params.sample import SamplerParams
from exact_stages.console import UserError
from scripts import demo
from tests.cli.generating import sampler, tiny_model
from tests.small import CPU, FRUITS

sync = pytest.importorskip("playwright.sync_api", reason="drives a browser; pip install playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
pytest.importorskip("onnxscript", reason="pip install -e '.[export]'")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not shutil.which("npm"), reason="no npm, from which ONNX Runtime Web comes; apt-get install npm"
    ),
]
Visit = Callable[..., Any]
GUIDED, WALKING, COLOURED = range(3)  # the models of the page
SAMPLE = """async ([index, choice, noises]) => {
    const {listModels, sample} = await import("./network.js");
    let used = 0;
    const steps = [];
    for await (const step of sample((await listModels())[index], choice, () => Float32Array.from(noises[used++])))
        steps.push([Array.from(step.guess), Array.from(step.next)]);
    return [steps, used];
}"""
NOISE = """async ([seed, size]) => {
    const {gaussianNoise} = await import("./noise.js");
    const noise = gaussianNoise(seed, size);
    return [Array.from(noise()), Array.from(noise())];
}"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    kinds: dict[str, dict[str, Any]] = {
        "guided": {"guides": ("autoguidance",), "faint": 60},
        "distilled-3": {"timesteps": (19, 12, 5)},
        "coloured": {"class_conditional": False, "data": FRUITS, "counts": (9, 9, 9)},
    }
    return [tiny_model(folder, **kind).rename(folder / f"{name}.safetensors") for name, kind in kinds.items()]


@pytest.fixture(scope="module")
def address(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the page with these models, served."""
    out = tmp_path_factory.mktemp("demo")
    try:
        vendor = demo.vendored(Path(demo.__file__).parents[1] / demo.VENDOR).parent
    except UserError as error:
        pytest.skip(str(error))
    (out / "models").mkdir()
    (out / "models/old.onnx").touch()
    demo.build(out, models, vendor)
    assert not (out / "models/old.onnx").exists()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=out)) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/"
        listening.shutdown()


def finished(page: Any, steps: int) -> None:
    """Wait until the image at hand is sampled."""
    sync.expect(page.locator("#status")).to_contain_text(f"{steps} steps in", timeout=60_000)


def noises(count: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def in_python(path: Path, params: SamplerParams, label: int) -> list[tuple[Tensor, Tensor]]:
    """Estimates and x of all steps, from the same noise as on the page."""
    loaded = load_model(path)
    drawn = iter(noises(21, loaded.card.data.shape))
    with torch.inference_mode():
        denoise = guided_denoiser(loaded, torch.tensor([label]), params, CPU)
        options = params.model_dump(include=OF_STEP)
        of_model = loaded.schedule, lambda: next(drawn)[None], visited(loaded, params)
        steps = p_sample_loop(denoise, *of_model, **options)
        found = [(step.pred_x_start, step.x_prev) for step in steps]
    guess, last = found[-1]
    return [*found[:-1], (guess, torch.where(to_uint8(last) > loaded.card.faint, last, -1.0))]


@pytest.mark.parametrize(
    ("index", "changes", "used"),
    [
        (GUIDED, {"sampler": "ddim", "eta": 0.0, "guidance": 1.0, "steps": 20}, 1),
        (GUIDED, {"sampler": "dpmpp_2m", "eta": 1.0, "guidance": 1.3}, 5),
        (WALKING, {"sampler": "ddpm", "steps": None}, 3),
        (COLOURED, {"sampler": "ddim", "eta": 0.0}, 1),
    ],
    ids=["alone", "guided", "distilled", "colour"],
)
def test_picture_is_that_of_python(
    visit: Visit, address: str, models: list[Path], index: int, changes: dict[str, Any], used: int
) -> None:
    params = sampler(**changes)
    label = [3, 7, 0][index]
    expected = in_python(models[index], params, label)
    page = visit(address)
    values = noises(21, load_model(models[index]).card.data.shape).flatten(1).tolist()
    choice = {"label": label, "steps": params.steps, "guidance": params.guidance}
    choice |= {"sampler": params.sampler, "eta": params.eta}
    steps, noise_used = page.evaluate(SAMPLE, [index, choice, values])
    assert noise_used == used
    assert len(steps) == len(expected)
    for found, wanted in zip(steps, expected, strict=True):
        for ours, theirs in zip(found, wanted, strict=True):
            assert torch.allclose(torch.tensor(ours), theirs.flatten(), rtol=0, atol=2e-3)
    levels = [to_uint8(each.float().flatten()).int() for each in (torch.tensor(steps[-1][1]), expected[-1][1])]
    assert levels[1].unique().numel() > 10, "a picture, not black and white alone"
    assert (levels[0] - levels[1]).abs().max() <= 2


def test_its_own_noise_is_normal_and_follows_from_the_seed(visit: Visit, address: str) -> None:
    page = visit(address)
    first, second = (torch.tensor(each) for each in page.evaluate(NOISE, [7, 20_000]))
    for values in (first, second):
        assert abs(values.mean()) < 0.03
        assert abs(values.var() - 1) < 0.04
        assert abs((values.abs() < 1).float().mean() - 0.6827) < 0.015
        assert abs((values[1:] * values[:-1]).mean()) < 0.03
    assert abs((first * second).mean()) < 0.03
    assert page.evaluate(NOISE, [7, 20])[0] == first[:20].tolist()
    assert page.evaluate(NOISE, [8, 20])[0] != first[:20].tolist()


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_page_can_be_used(visit: Visit, address: str, width: int, scheme: str) -> None:
    page = visit(address, width, scheme)
    finished(page, 20)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    broken = axe.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in broken] == []
    assert page.locator("[name=label] option").all_inner_texts() == ["1", "3", "7"], "those that it has seen"
    picture = "document.querySelectorAll('canvas')[1].toDataURL()"
    seen = {page.evaluate(picture)}
    for name, value in (("label", "3"), ("steps", "9"), ("guidance", "2"), ("sampler", "dpmpp_2m 0"), ("seed", "5")):
        field = page.locator(f"[name={name}]")
        field.select_option(value) if name in ("label", "sampler") else field.fill(value)
        finished(page, 20 if name == "label" else 9)
        page.wait_for_timeout(200)
        seen.add(page.evaluate(picture))
    assert len(seen) == 6, "each choice counts"
    assert page.locator("#caption").inner_text() == "step 9 of 9, t = 0"
    page.locator("#step").fill("0")
    assert page.locator("#caption").inner_text() == "step 1 of 9, t = 19"
    assert page.evaluate(picture) not in seen
    page.locator("#play").click()
    sync.expect(page.locator("#caption")).to_have_text("step 9 of 9, t = 0", timeout=20_000)
    assert page.evaluate(picture) in seen
    page.locator("[name=model]").select_option(str(WALKING))
    finished(page, 3)
    assert page.locator("[name=steps]").is_disabled()
    assert page.locator("[name=guidance]").is_disabled()
    page.locator("[name=model]").select_option(str(COLOURED))
    finished(page, 9)
    assert page.locator("[name=label]").is_disabled()
    assert page.evaluate("[document.querySelector('canvas').width, document.querySelector('canvas').height]") == [8, 16]


def test_a_runtime_of_other_bytes_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "other").write_bytes(b"other")
        with tarfile.open(Path(command[-1], "package.tgz"), "w:gz") as archive:
            archive.add(tmp_path / "other", "package/dist/ort.wasm.min.mjs")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", pack)
    with pytest.raises(UserError, match=r"ort.wasm.min.mjs has the wrong checksum; rejected"):
        demo.vendored(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"^npm: not installed"):
        demo.vendored(tmp_path)
    assert not [*tmp_path.rglob("*.mjs")]
