"""`make verify` finds what `dvc status` cannot see, and what it says to do mends it.

tests/scripts/test_verify_small.py has what takes no pipeline.
"""

import os
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.with_dvc.dvc_clone import Clone, ran

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
MODEL = "models/ddpm.safetensors"


def verify(clone: Clone, code: int = 0) -> str:
    return clone.run("python", "-m", "scripts.verify", code=code)


def flip_silently(path: Path) -> None:
    """Change one bit as a bad disk does: size and times stay."""
    before = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # the clones share their objects by hard links
    path.write_bytes(data)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cached(clone: Clone, output: str) -> Path:
    lock = YAML(typ="safe").load(clone.path / "dvc.lock")["stages"]
    (md5,) = [out["md5"] for stage in lock.values() for out in stage["outs"] if out["path"] == output]
    return clone.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def test_a_whole_workspace_is_said_to_be_whole(clone: Clone) -> None:
    assert "outputs and" in verify(clone)
    (clone.path / MODEL).unlink()
    assert "1 of" in verify(clone)  # a clone before `dvc pull` has nothing damaged


def test_a_damaged_output_is_mended_from_the_cache(clone: Clone) -> None:
    whole = (clone.path / MODEL).read_bytes()
    flip_silently(clone.path / MODEL)
    printed = verify(clone, code=1)
    assert f"{MODEL}: not what dvc.lock records; delete it, then `dvc checkout {MODEL}`" in printed, printed
    (clone.path / MODEL).unlink()
    clone.dvc("checkout", MODEL)
    assert (clone.path / MODEL).read_bytes() == whole
    verify(clone)


def test_a_damaged_object_is_named_and_made_again(clone: Clone) -> None:
    stored = cached(clone, MODEL)
    flip_silently(stored)
    printed = verify(clone, code=1)
    assert "1 damaged" in printed
    assert f"{stored.relative_to(clone.path)}: damaged" in printed.replace(f"{clone.path}/", ""), printed
    stored.unlink()
    clone.dvc("repro")
    verify(clone)


def test_when_both_are_damaged_the_stage_runs_again(clone: Clone) -> None:
    whole = (clone.path / MODEL).read_bytes()
    flip_silently(clone.path / MODEL)
    flip_silently(cached(clone, MODEL))
    printed = verify(clone, code=1)
    assert "2 damaged" in printed
    assert "`dvc repro train`" in printed
    cached(clone, MODEL).unlink()
    (clone.path / MODEL).unlink()
    assert "train" in ran(clone.dvc("repro", "train"))
    assert (clone.path / MODEL).read_bytes() == whole
    verify(clone)
