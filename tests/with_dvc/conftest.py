"""What is expensive runs once for all workers of pytest-xdist; every test then gets a copy of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import LATE, SAMPLE, Built, Clone, build_once, copy_clone, new_clone


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Built:
    """The tiny pipeline, run from nothing and committed."""

    def build(folder: Path) -> tuple[Clone, str]:
        clone = new_clone(folder)
        output = clone.dvc("repro")
        clone.commit()
        return clone, output

    return build_once(tmp_path_factory, worker_id, "pipeline", build)


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory, worker_id: str, pipeline: Built) -> Built:
    """`pipeline`, then an experiment named "slower" with half the learning rate, in the workspace."""

    def build(folder: Path) -> tuple[Clone, str]:
        clone = copy_clone(pipeline.clone, folder)
        return clone, clone.dvc("exp", "run", "--name", "slower", "-S", "train.lr=0.0005")

    return build_once(tmp_path_factory, worker_id, "experiment", build)


@pytest.fixture(scope="session")
def undisturbed(pipeline: Built, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Clone:
    """Training and sampling with other params, by one process."""

    def build(folder: Path) -> tuple[Clone, str]:
        clone = copy_clone(pipeline.clone, folder)
        clone.edit_params(LATE)
        return clone, clone.run(*SAMPLE)

    return build_once(tmp_path_factory, worker_id, "undisturbed", build).clone


@pytest.fixture
def clone(pipeline: Built, tmp_path: Path) -> Iterator[Clone]:
    """A copy of `pipeline` to do as one likes with."""
    yield copy_clone(pipeline.clone, tmp_path)
    shutil.rmtree(tmp_path)


@pytest.fixture
def tried(experiment: Built, tmp_path: Path) -> Iterator[Clone]:
    """A copy of `experiment` to do as one likes with."""
    yield copy_clone(experiment.clone, tmp_path)
    shutil.rmtree(tmp_path)
