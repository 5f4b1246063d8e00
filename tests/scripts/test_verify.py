"""`make verify` names what a bad disk has damaged, and doing what it says mends it; on a small repository of DVC."""

import shutil
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import ROOT, Clone, identify

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
PIPELINE = """
stages:
  double:
    cmd: mkdir -p made && cat data/single data/single > made/double && echo 2 > made/count
    deps: [data/single]
    outs: [made/double]
    metrics: [made/count: {cache: false}]
"""


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A stage that ran, a file and a folder of the user's own, and a remote that has it all."""
    clone = Clone(tmp_path / "clone")
    (clone.path / "data/mine/deep").mkdir(parents=True)
    for name in ("mine/1", "mine/deep/2", "single"):
        (clone.path / "data" / name).write_text(name)
    (clone.path / "dvc.yaml").write_text(PIPELINE)
    clone.git("init", "--quiet", "--initial-branch", "main")
    identify(clone)
    clone.dvc("init", "--quiet")
    clone.dvc("remote", "add", "--default", "storage", "../remote")
    clone.dvc("add", "--quiet", "data/mine", "data/single")
    clone.dvc("repro", "--quiet")
    clone.dvc("push", "--quiet")
    clone.commit()
    return clone


def verify(clone: Clone, code: int = 0) -> str:
    return clone.run("python", "-m", "scripts.verify", code=code, PYTHONPATH=str(ROOT)).replace(f"{clone.path}/", "")


def damaged(clone: Clone) -> list[str]:
    """The files that are named, an object of the cache by the beginning of its path."""
    lines = verify(clone, code=1).split("damaged\n")[1].splitlines()[:-1]
    return sorted(line.split(":")[0].strip().partition("/md5/")[0] for line in lines)


def flip(path: Path) -> None:
    """Change a bit, as a bad disk does."""
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.unlink()
    path.write_bytes(data)


def cached(clone: Clone, content: bytes) -> Path:
    objects = (clone.path / ".dvc/cache/files/md5").glob("*/*")
    return next(path for path in objects if path.read_bytes() == content)


def test_damage_is_named_and_mended_as_it_says(clone: Clone) -> None:
    assert "4 outputs and the cache are whole" in verify(clone)
    outputs = ["data/mine/deep/2", "data/single", "made/count", "made/double"]
    content = (clone.path / "made/double").read_bytes()
    objects = [cached(clone, content), cached(clone, b"mine/1")]
    for path in (*objects, *(clone.path / output for output in outputs)):
        flip(path)
    assert damaged(clone) == [".dvc/cache/files"] * 2 + outputs
    for path in (*objects, *(clone.path / output for output in outputs)):
        path.unlink()
    clone.git("checkout", "made/count")
    clone.dvc("pull")
    verify(clone)
    assert (clone.path / "made/double").read_bytes() == content


def test_what_is_missing_is_told_and_files_of_another_kind_are_named(clone: Clone) -> None:
    (clone.path / "made/double").unlink()
    assert "not checked: made/double" in verify(clone)
    (clone.path / "made/double").mkdir()
    (clone.path / "data/mine/1").unlink()
    listing = next((clone.path / ".dvc/cache/files/md5").glob("*/*.dir"))
    assert damaged(clone) == ["data/mine/1", "made/double"]
    listing.unlink()
    listing.write_text("[")
    assert damaged(clone) == [".dvc/cache/files", "made/double"]


@pytest.mark.parametrize(
    ("file", "start"), [("dvc.lock", "dvc.lock: half-written"), ("dvc.yaml", "DVC cannot read its records: ")]
)
def test_half_a_file_is_one_line_and_mended_as_it_says(clone: Clone, file: str, start: str) -> None:
    (clone.path / file).write_text("stages: [1]")
    (line,) = verify(clone, code=1).splitlines()
    assert line.startswith(f"error: {start}")
    clone.git("checkout", file)
    clone.dvc("repro")
    verify(clone)
