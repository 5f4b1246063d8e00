"""The same bytes on all processors with AVX2: what limits the instructions, and what refuses to."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm.processes import portable
from ddpm.processes.portable import CHOOSING, LIMITED, lacking, limit
from exact_stages.code import lines_of
from tests.golden import known
from tests.small import CPU
from tests.trainings import small_training

ROOT = Path(__file__).parents[2]
OF_OPENBLAS = {"linalg", "dot", "vdot", "inner", "outer", "matmul", "tensordot", "einsum", "cov", "corrcoef", "polyfit"}
here = pytest.mark.skipif(bool(lacking()), reason=lacking())


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, in portable mode but for the variables."""
    kept = {name: value for name, value in os.environ.items() if name not in {*CHOOSING, "DDPM_DEVICE"}}
    given = {**kept, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "DDPM_PRECISION": "portable", **variables}
    return subprocess.run([sys.executable, "-c", code], env=given, cwd=ROOT, capture_output=True, text=True)


@here
@pytest.mark.parametrize("entry", ["import stages", "from ddpm.cli.main import main; sys.argv[1:] = []; main()"])
def test_stages_and_the_command_limit_all_libraries(entry: str) -> None:
    names = "torch.backends.cpu.get_cpu_capability(), np._core._multiarray_umath.__cpu_features__['X86_V4']"
    shown = f"import torch, numpy as np; print({names}, *({[*LIMITED]!r}[i] in os.environ for i in range(4)))"
    found = python(f"import atexit, os, sys\natexit.register(lambda: exec({shown!r}))\n{entry}")
    assert found.stdout.splitlines()[-1] == "AVX2 False True True True True", found.stderr


@here
def test_roots_and_arcs_are_not_those_that_begin_with_an_estimate() -> None:
    code = """
from ddpm.processes.portable import limit
limit()
import math, torch
x = torch.rand(1001, 3, generator=torch.Generator().manual_seed(0))
exact = torch.tensor([math.sqrt(each) for each in x.flatten().tolist()]).view_as(x)
out = torch.empty(0)
assert all(torch.equal(each, exact) for each in (x.sqrt(), x.clone().sqrt_(), torch.sqrt(x, out=out), out))
assert torch.equal(x.double().sqrt().float(), exact) and torch.equal(torch._foreach_sqrt([x])[0], exact)
torch.testing.assert_close(x.double().atan().tan(), x.double())
torch.testing.assert_close(x.double().asin().sin(), x.double())
torch.testing.assert_close((x.double() * 1e-300).log().exp(), x.double() * 1e-300)
torch.testing.assert_close(torch.tensor([8, 1000]).log2().exp2(), torch.tensor([8.0, 1000.0]))
torch.testing.assert_close(x.double().log10(), x.double().log() / math.log(10))
assert torch.tensor([0.0, 1.0, torch.inf, -1.0]).log().tolist()[:3] == [-torch.inf, 0.0, torch.inf]
assert torch.tensor([4]).sqrt().tolist() == [2.0] and torch.tensor(4.0).sqrt() == 2
assert (torch.complex(x, -x).sqrt().square() - torch.complex(x, -x)).abs().max() < 1e-6
leaf = x.clone().requires_grad_()
leaf.sqrt().sum().backward()
torch.testing.assert_close(leaf.grad, 0.5 / exact)
"""
    assert python(code).stderr == ""


REFUSED = {
    "what contradicts it": ({"MKL_CBWR": "AVX2"}, "", "MKL_CBWR=AVX2"),
    "a GPU": ({"DDPM_DEVICE": "cuda"}, "", "DDPM_DEVICE=cuda"),
    "torch that has chosen": ({}, "import torch", "imported already"),
    "another processor": ({}, "import platform; platform.machine = lambda: 'aarch64'", "aarch64"),
    "an old processor": ({}, "import pathlib; pathlib.Path.read_text = lambda *_, **__: '\\nflags : sse2'", "AVX2"),
}


@here
@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_allow_it_ends_in_one_line(what: str) -> None:
    variables, before, named = REFUSED[what]
    found = python(f"{before}\nimport stages", **variables)
    assert (found.returncode, found.stderr.count("\n")) == (1, 1)
    assert found.stderr.startswith("error: DDPM_PRECISION=portable: ")
    assert named in found.stderr


def test_no_output_names_the_processor_or_the_build_of_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every stage takes what it writes of the machine from `describe`."""
    monkeypatch.setenv("DDPM_PRECISION", "portable")
    written = []
    for name, build in (("AMD EPYC", "2.13.0+cpu"), ("Intel Xeon", "2.13.0+cu130")):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda name=name: {"cpu_name": name, "avx512_f": name[0] == "I"}
        )
        monkeypatch.setattr(torch, "__version__", build)
        monkeypatch.setenv("MKL_CBWR", build)
        assert CPU.describe() == {"torch": "2.13.0", "device": "cpu", "precision": "portable"}
        small_training().save(tmp_path / name, environment=CPU.describe())
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_workers_and_their_start_find_it_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PRECISION", "portable")
    with pytest.raises(SystemExit, match="imported already"):
        limit()
    monkeypatch.setattr(portable, "_held", [None])
    limit()


def test_no_stage_takes_products_or_eigenvalues_from_numpy() -> None:
    """OpenBLAS chooses its kernels by the processor, and nothing here tells it not to."""
    names = {name for path in (ROOT / "code").glob("*.txt") for name in lines_of(path.read_text(encoding="utf-8"))}
    for path in (ROOT / name for name in names if name.endswith(".py")):
        nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        of_numpy = [each for each in nodes if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "np"]
        assert not OF_OPENBLAS.intersection(each.attr for each in of_numpy), path
        assert not (of_numpy and any(isinstance(each, ast.MatMult) for each in nodes)), path
        modules = {ast.unparse(each) for each in nodes if isinstance(each, (ast.Import, ast.ImportFrom))}
        assert not any("scipy" in each or "numpy.linalg" in each for each in modules), path


@here
def test_a_tiny_run_has_the_bytes_that_other_processors_gave() -> None:
    ran = subprocess.run([sys.executable, "-m", "tests.golden"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    wanted = known().get(found["torch"])
    if not wanted:
        pytest.skip(f"no hashes of torch {found['torch']} are known; `python -m tests.golden --write` adds them")
    assert [*found["hashes"]] == [*wanted]
    first = next((name for name, value in wanted.items() if found["hashes"][name] != value), None)
    assert first is None, f"the first operation that differs: {first}"
