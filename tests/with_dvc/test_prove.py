"""`ddpm prove` with real dvc: two clones give the same bytes, and a constant that differs is found."""

import re
import shutil
from pathlib import Path

import pytest

from ddpm.proving.facts import commit_of, read_provenance
from ddpm.proving.rebuild import compare
from tests.with_dvc.dvc_clone import Clone, git_clone, ran

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
MODEL = "models/ddpm.safetensors"
RECORD = Path("models/ddpm.provenance.json")


def left(scratch: Path) -> list[str]:
    """What is left of temporary files, but for the cache that torch makes when it is imported."""
    return [path.name for path in scratch.iterdir() if not path.name.startswith("torchinductor")]


@pytest.fixture
def scratch(clone: Clone) -> Path:
    folder = clone.path.parent / "scratch"
    folder.mkdir()
    return folder


def test_a_clone_built_from_the_commit_matches_and_leaves_nothing(clone: Clone, scratch: Path) -> None:
    (clone.path / "data/mnist/README.md").write_text("digits")  # what no stage reads, and the commit lacks
    clone.append("src/ddpm/optim.py", "# a comment, not committed")
    variables = {"PYTHONPATH": "src", "TMPDIR": str(scratch)}
    printed = clone.run("python", "-m", "ddpm", "prove", "--rebuild", MODEL, **variables)
    commit = clone.git("rev-parse", "HEAD").strip()
    assert "differs  code src/ddpm/optim.py: differs" in printed
    assert ran(printed) == {"download", "preprocess", "train"}
    assert f"MATCH: {MODEL} " in printed
    assert f"from commit {commit}" in printed
    assert left(scratch) == []


def test_a_constant_that_differs_is_found_by_the_first_output_that_does(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = git_clone(clone, tmp_path / "other")
    code = other.path / "src/ddpm/optim.py"
    code.write_text(code.read_text().replace("scale = 0.2 *", "scale = 20 *"))
    other.dvc("repro", "train")
    monkeypatch.chdir(clone.path)
    made = read_provenance(RECORD)
    facts = Path(MODEL), made, commit_of(RECORD, made), other.path
    first, weights, *losses, cause = compare(*facts)
    assert first == f"{MODEL}: the first output that differs"
    assert " arrays differ, by at most " in weights
    (loss,) = [line for line in losses if line.startswith("metrics/train/loss.csv")]
    found = re.search(r": from step (\d+), where train_loss is ([\d.]+), not ([\d.]+)$", loss)
    assert int(found[1]) > 1, "the first loss is of the weights that both begin with"
    assert float(found[2]) != float(found[3])
    assert cause == "likely cause: code src/ddpm/optim.py: differs"

    shutil.copy(clone.path / MODEL, other.path / MODEL)
    assert compare(*facts) == []
