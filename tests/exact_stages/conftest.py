"""Projects for tests of the kit."""

import os
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from exact_stages.twice import git


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty repository of git and DVC, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", f"{tmp_path}/.dvc/site")
    git("init", "--quiet")
    Repo.init().close()
