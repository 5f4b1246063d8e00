"""`make verify` names what a bad disk has damaged, and doing what it says mends it; on a small repository of DVC."""

from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import ROOT, Clone

pytestmark = [pytest.mark.pipeline, pytest.mark.long]


def verify(clone: Clone, code: int = 0) -> str:
    variables = {"PYTHONPATH": str(ROOT / "src")}
    return clone.run("python", "-m", "ddpm", "prove", "--all", code=code, **variables).replace(f"{clone.path}/", "")


def damaged(clone: Clone) -> list[str]:
    """The files that are named, an object of the cache by the beginning of its path."""
    lines = verify(clone, code=1).split("damaged\n")[1].splitlines()[:-1]
    return sorted(line.split(":")[0].strip().partition("/md5/")[0] for line in lines)


def cached(clone: Clone, content: bytes) -> Path:
    objects = (clone.path / ".dvc/cache/files/md5").glob("*/*")
    return next(path for path in objects if path.read_bytes() == content)


def test_damage_is_named_and_mended_as_it_says(clone: Clone) -> None:
    clone.dvc("remote", "add", "--default", "storage", "../remote")
    clone.dvc("push")
    assert "5 outputs and the cache are whole" in verify(clone)
    outputs = ["data/mine/deep/2", "metrics/train/summary.json", "models/ddpm.bin"]
    content = (clone.path / "models/ddpm.bin").read_bytes()
    broken = [cached(clone, content), cached(clone, b"one"), *(clone.path / output for output in outputs)]
    for path in broken:
        data = path.read_bytes()
        path.unlink()  # clones share the objects of the cache
        path.write_bytes(data[:-1] + b"x")
    assert damaged(clone) == [".dvc/cache/files"] * 2 + outputs
    for path in broken:
        path.unlink()
    clone.git("checkout", "metrics")
    clone.dvc("pull")
    verify(clone)
    assert (clone.path / "models/ddpm.bin").read_bytes() == content


def test_an_output_that_is_missing_is_told_and_a_file_of_a_folder_is_named(clone: Clone) -> None:
    (clone.path / "models/ddpm.bin").unlink()
    assert "not checked: models/ddpm.bin" in verify(clone)
    (clone.path / "data/mine/1").unlink()
    assert damaged(clone) == ["data/mine/1"]


def test_a_folder_that_git_keeps_is_left_to_git(clone: Clone) -> None:
    outs = "outs: [code: {cache: false, persist: true}]"
    clone.append("dvc.yaml", f"  code: {{cmd: mkdir -p code && echo 1 > code/fit.txt, {outs}}}")
    clone.dvc("repro", "--quiet", "code")
    assert "not checked" not in verify(clone)
