"""`make remote` gives DVC the URL as it was typed, runs nothing of it, and leaves the configuration whole."""

import os
import shutil
from pathlib import Path

import pytest
from dvc.config import Config

from tests.with_dvc.dvc_clone import ROOT, Clone

pytestmark = pytest.mark.pipeline
EVIL = """s3://b/ a#b;c'd"e$HOME$(HOME)$$x$(shell touch made)`touch made`$(touch made);touch made;\\%s%%,"""
CONFIG = "[core]\n    analytics = false\n['remote \"other\"']\n    url = ../../other\n"


@pytest.fixture
def repository(tmp_path: Path) -> Clone:
    """With the Makefile, and an environment that make takes for finished."""
    repository = Clone(tmp_path / "clone")
    (repository.path / ".venv").mkdir(parents=True)
    shutil.copy2(ROOT / "Makefile", repository.path)
    for name in ("pyproject.toml", "constraints.txt"):
        (repository.path / name).touch()
    repository.git("init", "--quiet")
    repository.dvc("init", "--quiet")
    (repository.path / ".dvc/config").write_text(CONFIG)
    repository.run("make", "--silent", "--touch", "env")
    return repository


@pytest.mark.parametrize("url", ["ssh://user@host:22/srv/ddpm", "/a/folder with blanks", "-x", EVIL])
def test_dvc_reads_what_was_typed(repository: Clone, url: str) -> None:
    repository.run("make", "--silent", "remote", f"URL={url}", PYTHONPATH=str(ROOT))
    settings = Config(repository.path / ".dvc").read("repo")
    expected = url if "://" in url else os.path.join(repository.path, url)
    assert settings["remote"]["storage"] == {"url": expected, "verify": "true"}
    assert settings["remote"]["other"] == {"url": str(repository.path.parent / "other")}
    assert settings["core"] == {"analytics": "false", "remote": "storage"}
    assert not list(repository.path.parent.rglob("made"))


@pytest.mark.parametrize(
    "url", ["", "/srv/B\xfccher", "ftp://host/path", "s3://bucket/%(nothing)s", "ssh://user:secret@host/path"]
)
def test_what_dvc_cannot_keep_is_one_line_and_changes_nothing(repository: Clone, url: str) -> None:
    printed = repository.run("python", "-m", "scripts.remote", code=1, URL=url, PYTHONPATH=str(ROOT))
    assert printed.startswith("error: URL: ")
    assert len(printed.splitlines()) == 1
    assert "secret" not in printed
    assert (repository.path / ".dvc/config").read_text() == CONFIG
