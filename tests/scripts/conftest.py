"""The small repository is made once, and copied for each test."""

import shutil
from pathlib import Path

import pytest

from tests.scripts.small_repository import PIPELINE, STAGE
from tests.with_dvc.dvc_clone import Clone, identify


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Three stages that ran, a file and a folder of the user's own, and a remote that has it all."""
    clone = Clone(tmp_path_factory.mktemp("small") / "clone")
    clone.path.mkdir()
    clone.git("init", "--quiet", "--initial-branch", "main")
    identify(clone)
    clone.dvc("init", "--quiet")
    clone.dvc("remote", "add", "--default", "storage", "../remote")
    for name, text in (("params.yaml", "lr: 1e-05\n"), ("stage.py", STAGE), ("dvc.yaml", PIPELINE)):
        (clone.path / name).write_text(text)
    (clone.path / "data/mine/deep").mkdir(parents=True)
    for name in ("mine/1", "mine/deep/2", "single"):
        (clone.path / "data" / name).write_text(name)
    clone.dvc("add", "--quiet", "data/mine", "data/single")
    clone.dvc("repro", "--quiet")
    clone.dvc("push", "--quiet", "--run-cache")
    clone.commit()
    return clone


@pytest.fixture
def clone(built: Clone, tmp_path: Path) -> Clone:
    shutil.copytree(built.path.parent / "remote", tmp_path / "remote")
    shutil.copytree(built.path, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")
