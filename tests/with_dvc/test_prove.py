"""`ddpm prove --rebuild` with real dvc: a clone of the commit gives the same bytes."""

import pytest

from tests.with_dvc.dvc_clone import Clone, ran

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
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
