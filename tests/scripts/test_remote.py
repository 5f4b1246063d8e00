"""`make remote` gives DVC the URL as it was typed, runs nothing of it, and leaves the configuration whole."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.config import Config

from tests.with_dvc.dvc_clone import ROOT, Clone

pytestmark = pytest.mark.pipeline
EVIL = """s3://b/ a#b;c'd"e$HOME$(HOME)$$x$(shell touch made)`touch made`$(touch made);touch made;\\%s%%,"""
CONFIG = "[core]\n    analytics = false\n['remote \"other\"']\n    url = ../../other\n"


@pytest.fixture
def repository(tmp_path: Path) -> Clone:
    repository = Clone(tmp_path / "clone")
    (repository.path / ".dvc").mkdir(parents=True)
    (repository.path / ".dvc/config").write_text(CONFIG)
    return repository


def remote(repository: Clone, url: str, code: int = 0, *before: str) -> str:
    return repository.run(*before, "python", "-m", "scripts.remote", code=code, URL=url, PYTHONPATH=str(ROOT))


def settings(repository: Clone) -> dict[str, Any]:
    return Config(repository.path / ".dvc").read("repo")


def files(repository: Clone) -> list[str]:
    return sorted(path.name for path in (repository.path / ".dvc").glob("config*"))


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/path",
        "ssh://user@host:22/srv/ddpm",
        "webdavs://host/ddpm",
        EVIL,
        "/a/folder with blanks",
        " /a/ ",
        "'/a'",
        '"/a"',
        "/a,b",
        "-x",
        "#",
        "%",
        "[a]",
        "a = b",
        "'''",
        "'\"",
        ",",
    ],
)
def test_dvc_reads_what_was_typed(repository: Clone, url: str) -> None:
    remote(repository, url)
    local = "://" not in url
    read = settings(repository)
    assert read["remote"] == {
        "other": {"url": str(repository.path.parent / "other")},
        "storage": {"url": os.path.join(repository.path, url) if local else url, "verify": "true"},
    }
    assert read["core"] == {"analytics": "false", "remote": "storage"}
    assert files(repository) == ["config"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "URL: missing; say make remote URL="),
        ("webdavs://host/\xe4", "URL: has a character"),
        ("s3://bucket/\udcff", "URL: has a character"),
        ("s3://bucket/a\nb", "URL: has a character"),
        ("s3://bucket/a\rb", "URL: has a character"),
        ("s3://bucket/a\x1cb", "URL: has a character"),
        ("s3://bucket/\n", "URL: has a character"),
        ("s3://bucket/%(verify)s", "URL: DVC would read something else"),
        ("s3://bucket/%(nothing)s", "URL: DVC refuses it: missing option"),
        ("s3://bucket/'''\"\"\"", "URL: DVC refuses it: "),
        ("ftp://host/path", "URL: give a folder, or one of s3://..."),
    ],
)
def test_what_dvc_cannot_keep_changes_nothing(repository: Clone, url: str, said: str) -> None:
    printed = remote(repository, url, 1)
    assert printed.startswith(f"error: {said}")
    assert len(printed.splitlines()) == 1
    assert (repository.path / ".dvc/config").read_text() == CONFIG
    assert files(repository) == ["config"]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("['remote \"storage\"']\naccess_key_id = x\n", "URL: DVC refuses it: .*extra keys.* settings of storage"),
        ("['remote \"storage\"']\nurl = s3://mine\n", ".dvc/config.local: has another default remote, or another url"),
        ("[core]\nremote = other\n", ".dvc/config.local: has another default remote, or another url"),
        ("['remote \"storage\"']\npassword = %(x)s\n", ".dvc/config.local: DVC cannot read it; delete it"),
        ("password = hush\nnonsense hush\n", r".dvc/config.local: DVC cannot read it \(at line 2\); delete it"),
        ("", ".dvc/config.local: empty; delete it"),
    ],
)
def test_the_user_s_own_settings_may_stand_against_it(repository: Clone, own: str, said: str) -> None:
    (repository.path / ".dvc/config.local").write_text(own)
    printed = remote(repository, "/a/folder", 1)
    assert len(printed.splitlines()) == 1
    assert re.search(said, printed), printed
    assert "hush" not in printed
    assert (repository.path / ".dvc/config").read_text() == CONFIG


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[core", ".dvc/config: DVC cannot read it (at line 1); `git checkout .dvc/config`"),
        ("", ".dvc/config: empty; `git checkout .dvc/config`"),
        ("['remote \"other\"']\nurl = /\xe4\n", ".dvc/config: has a value that is not ASCII"),
    ],
)
def test_a_damaged_configuration_stays_as_it_is(repository: Clone, text: str, said: str) -> None:
    (repository.path / ".dvc/config").write_text(text)
    assert remote(repository, "/a/folder", 1).startswith(f"error: {said}")
    assert (repository.path / ".dvc/config").read_text() == text


def test_a_full_disk_leaves_the_configuration(repository: Clone) -> None:
    printed = remote(repository, "/a/folder", 1, "bash", "-c", 'ulimit -f 0; exec "$@"', "bash")  # no file may grow
    assert printed.startswith("error: ")
    assert len(printed.splitlines()) == 1
    assert (repository.path / ".dvc/config").read_text() == CONFIG


@pytest.fixture
def made(repository: Clone) -> Clone:
    """With the Makefile, and an environment that make takes for finished."""
    shutil.copy2(ROOT / "Makefile", repository.path)
    for name in ("pyproject.toml", "constraints.txt"):
        (repository.path / name).touch()
    (repository.path / ".venv").mkdir()
    repository.run("make", "--silent", "--touch", "env")
    return repository


@pytest.mark.parametrize("typed", [EVIL, "$(shell touch made)", "$(touch made)", "`touch made`", '";touch made;"'])
@pytest.mark.parametrize("by", ["command line", "environment"])
def test_make_runs_nothing_of_it(made: Clone, typed: str, by: str) -> None:
    command = ("make", "--silent", "-f", "Makefile", "remote")
    if by == "environment":
        made.run(*command, URL=typed, PYTHONPATH=str(ROOT))
    else:
        made.run(*command, f"URL={typed}", PYTHONPATH=str(ROOT))
    kept = made.dvc("config", "remote.storage.url").removesuffix("\n")
    assert kept == (typed if "://" in typed else str(made.path / typed))
    assert not list(made.path.parent.rglob("made"))


def test_make_without_a_url_says_what_to_type(made: Clone) -> None:
    done = subprocess.run(
        ["make", "--silent", "remote"],
        cwd=made.path,
        env={name: value for name, value in os.environ.items() if name != "URL"} | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: URL: missing; say make remote URL=s3://bucket/path")
    assert (made.path / ".dvc/config").read_text() == CONFIG
