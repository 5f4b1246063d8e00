"""The example and the package as a stranger uses them: copied out of the repository, and run by real dvc."""

import os
import shutil
import venv
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import ROOT, Clone, ran, stale


@pytest.fixture
def mine(tmp_path: Path) -> Clone:
    """The example, with the package instead of the link to it, in a git repository."""
    clone = Clone(tmp_path / "mine")
    kept = shutil.ignore_patterns("__pycache__", "cache", "tmp", ".resume", "data", "metrics", "models", "dvc.lock")
    shutil.copytree(ROOT / "examples/wine", clone.path, ignore=kept)
    clone.git("init", "--quiet")
    return clone


@pytest.mark.long
def test_kill_9_and_equal_bytes_in_a_fresh_environment_without_torch(mine: Clone, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    path = {"PATH": f"{tmp_path}/venv/bin{os.pathsep}{os.environ['PATH']}"}
    mine.run("pip", "install", "-qr", "requirements.txt", "-c", str(ROOT / "constraints.txt"), **path)
    assert "No module named 'torch'" in mine.run("python", "-c", "import torch", code=1, **path)
    mine.run("python", "-m", "pytest", **path)
    mine.run("python", "-m", "exact_stages", "code", "--check", **path)
    mine.edit_params({"fit.steps": 50_000})
    mine.run("dvc", "repro", **path)
    printed = mine.run("python", "-m", "exact_stages", "twice", "fit", "--kill", "2", "--seed", "16", **path)
    assert printed.count("outputs are equal") == 3, printed
    assert "killed at " in printed
    shutil.rmtree(tmp_path)  # large


def test_an_edit_reruns_the_stages_that_import_the_file_and_a_comment_none(mine: Clone) -> None:
    assert ran(mine.dvc("repro")) == {"split", "fit", "score"}
    assert not stale(mine.dvc("status"))
    for file, line, stages in (
        ("wine/softmax.py", "# a comment", set()),
        ("wine/softmax.py", "UNUSED = 1", {"fit", "score"}),
        ("stages/split.py", "UNUSED = 1", {"split"}),
        ("exact_stages/commands.py", "UNUSED = 1", set()),  # no stage imports it
    ):
        mine.append(file, line)
        assert ran(mine.dvc("repro")) == stages, (file, line)
    mine.append("wine/softmax.py", "ANOTHER = 1")
    printed = mine.dvc("repro", "--single-item", "--force", "fit", code=255)
    assert "error: wine/softmax.py changed since the stage `code` ran; run `dvc repro`\n" in printed
