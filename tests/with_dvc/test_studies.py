"""What studies take from the pipeline, with real dvc."""

import pytest

from tests.with_dvc.dvc_clone import Clone

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
CODE = "from studies.rare_class.dataset import processed_folder; print(processed_folder('data/mnist', 'data/mine'))"


def test_another_set_is_made_in_a_copy_and_the_workspace_stays_as_it_is(clone: Clone) -> None:
    here, written = clone.path / "data/processed/train.safetensors", clone.path / "build/rare_class/mnist"
    before = here.stat().st_mtime_ns
    for _ in range(2):  # a second time over the first
        folder = clone.run("python", "-c", CODE).splitlines()[-1]
        assert (clone.path / folder / "train.safetensors").read_bytes() == here.read_bytes()
        assert clone.path / folder == written / "data/processed"
    assert here.stat().st_mtime_ns == before
    assert clone.git("status", "--short").strip() == ""
    assert clone.dvc("status").strip() == "Data and pipelines are up to date."
