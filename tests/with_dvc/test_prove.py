"""`ddpm prove --rebuild` with real dvc: a clone of the commit gives the same bytes."""

import re
import shutil

import pytest

from ddpm.proving.rebuild import rename_torch
from exact_stages.files import md5
from tests.with_dvc.dvc_clone import Clone, ran

pytestmark = pytest.mark.long
MODEL = "models/ddpm.safetensors"


def test_a_clone_built_from_the_commit_matches_and_leaves_nothing(clone: Clone) -> None:
    scratch = clone.path.parent / "scratch"
    scratch.mkdir()
    (clone.path / "data/mnist/README.md").write_text("digits")  # what no stage reads, and the commit lacks
    clone.append("src/ddpm/diffusion/optim.py", "UNUSED = 1  # not committed")
    variables = {"PYTHONPATH": "src", "TMPDIR": str(scratch)}
    printed = clone.run("python", "-m", "ddpm", "prove", "--rebuild", MODEL, **variables)
    assert "differs  code src/ddpm/diffusion/optim.py: differs" in printed
    assert ran(printed) == {"download", "preprocess", "train"}
    assert f"MATCH: {MODEL} " in printed
    assert [path for path in scratch.iterdir() if not path.name.startswith("torchinductor")] == []  # torch's cache


def test_the_committed_model_is_built_from_git_alone_and_where_it_parts_is_told(clone: Clone) -> None:
    """Another machine has another torch, and has made its own model, in which every step is rounded otherwise."""
    model, environment, lock = (clone.path / name for name in (MODEL, "metrics/train/environment.json", "dvc.lock"))
    environment.write_text(re.sub('"torch": "[^"]+"', '"torch": "2.9.0"', environment.read_text()))
    own = md5(model)
    rename_torch(model, model, "2.9.0")
    lock.write_text(lock.read_text().replace(own, md5(model)))
    clone.commit()
    model.unlink()
    shutil.rmtree(clone.path / ".dvc/cache")
    prove = ("python", "-m", "ddpm", "prove", "--rebuild", MODEL)
    printed = clone.run(*prove, "--until", "3", PYTHONPATH="src")
    assert "differs  environment torch: " in printed
    assert "equal to step 5" in printed
    assert "MATCH: the first 3 steps are those of commit " in printed
    printed = clone.run(*prove, PYTHONPATH="src")
    assert re.search(r"^MATCH: .*, byte for byte, but for the torch that it names$", printed, re.MULTILINE)
    printed = clone.run(*prove, code=1, PYTHONPATH="src", ONEDNN_MAX_CPU_ISA="SSE41")
    assert "equal to step 0, different at step 1\n" in printed
    assert "likely cause, if no input differs: rounding" in printed
    path = clone.path / "metrics/train/summary.json"
    path.write_text(re.sub('"5 [0-9a-f]+"', '"5 0"', path.read_text()))
    clone.commit()
    printed = clone.run(*prove, code=1, PYTHONPATH="src")
    assert "NO MATCH" in printed
    assert "equal to step 2, different at step 5\n" in printed
    assert "rarer" in printed
