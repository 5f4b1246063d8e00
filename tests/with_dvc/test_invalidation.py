"""Each edit reruns exactly the stages that it can change, and what comes out equal stops the chain."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.with_dvc.dvc_clone import Built, Clone, copy_clone, ran, restored

pytestmark = pytest.mark.pipeline
SAMPLES = {"sample@gallery", "sample@population"}
CLASSIFIERS = {"classifier@a", "classifier@b"}
SCORES = {"filter", "evaluate", "likelihood", "classification_accuracy_score"}


@pytest.fixture(scope="module")
def growing(pipeline: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone whose edits pile up: each is new, so each test sees the effect of its own one alone."""
    folder = tmp_path_factory.mktemp("growing")
    yield copy_clone(pipeline.clone, folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def own(pipeline: Built, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy for this module: of the pipeline itself others may be taking theirs."""
    return copy_clone(pipeline.clone, tmp_path_factory.mktemp("own"))


@pytest.fixture
def unchanged(own: Clone) -> Iterator[Clone]:
    """A copy for edits that are only looked at: no stage runs."""
    yield own
    own.git("checkout", ".")


# The section `train` is in test_experiments.py, by way of `dvc exp run`.
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "value", "stages"),
    [
        ("schedule.beta_end", 0.019, {"forward_diffusion", "train", *SAMPLES, *SCORES}),
        ("classifier.lr", 0.003, {*CLASSIFIERS, "filter", "evaluate", "classification_accuracy_score"}),
        ("sample.gallery.classes", [7], {"sample@gallery"}),  # which are all that the model has seen
    ],
)
def test_a_param_reruns_the_stages_that_read_it_and_those_behind(
    growing: Clone, name: str, value: Any, stages: set[str]
) -> None:
    growing.edit_params({name: value})
    output = growing.dvc("repro")
    assert (ran(output), restored(output)) == (stages, set()), output


@pytest.mark.long
def test_a_comment_reruns_the_stages_that_import_the_file(growing: Clone) -> None:
    growing.append("src/ddpm/diffusion/schedule.py", "# a comment")
    output = growing.dvc("repro")
    # It changes no output: none behind them runs.
    assert ran(output) == {"forward_diffusion", "train", *SAMPLES, "likelihood"}, output
    assert restored(output) == set()


# A dry run names the stages that an edit reaches itself, and not those behind.
@pytest.mark.parametrize(
    ("name", "value", "stages"),
    [
        ("data.fit", "pad", {"preprocess"}),
        ("forward_diffusion.seed", 1, {"forward_diffusion"}),
        ("model.time_embed_dim", 32, {"train"}),
        ("sample.gallery.seed", 2, {"sample@gallery"}),
        ("sample.population.seed", 3, {"sample@population"}),
        ("filter.least_probability", 0.25, {"filter"}),
        ("evaluate.confidence", 0.8, {"evaluate"}),
        ("likelihood.seed", 1, {"likelihood"}),
        ("classification_accuracy_score.count", 50, {"classification_accuracy_score"}),
    ],
)
def test_a_param_reaches_the_stages_that_read_it(unchanged: Clone, name: str, value: Any, stages: set[str]) -> None:
    unchanged.edit_params({name: value})
    assert ran(unchanged.dvc("repro", "--dry")) == stages


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("src/ddpm/ingest/fetching.py", {"download@mnist", "preprocess"}),
        ("src/ddpm/classifier/model.py", {*CLASSIFIERS, "filter", "evaluate", "classification_accuracy_score"}),
        ("src/ddpm/classifier/fit.py", {*CLASSIFIERS, "classification_accuracy_score"}),
        ("src/ddpm/training/loop.py", {"train"}),
        ("src/ddpm/training/setup.py", {"train"}),
        ("src/ddpm/parallel/launch.py", {"train", *SAMPLES}),
        ("src/ddpm/training/step.py", {"train"}),
        ("src/ddpm/sampling/samplers.py", SAMPLES),
        ("src/ddpm/sampling/guidance.py", SAMPLES),
        ("src/ddpm/networks/guides.py", {"train", *SAMPLES, "likelihood"}),
        ("src/ddpm/pictures/figures.py", {"forward_diffusion", "evaluate"}),
        ("src/ddpm/scoring/scores.py", {"filter", "evaluate", "classification_accuracy_score"}),
        ("src/ddpm/scoring/likelihood.py", {"likelihood"}),
        ("src/ddpm/cli/generate.py", set()),
        ("scripts/check_params.py", set()),
        ("params.yaml", set()),
    ],
)
def test_a_comment_reaches_the_stages_that_import_the_file(unchanged: Clone, file: str, stages: set[str]) -> None:
    unchanged.append(file, "# a comment")
    assert ran(unchanged.dvc("repro", "--dry")) == stages


def test_another_data_set_is_downloaded_and_preprocessed(unchanged: Clone) -> None:
    unchanged.edit_params({"data.set": "data/fashion_mnist", "download.sets": ["fashion_mnist"]})
    assert ran(unchanged.dvc("repro", "--dry", "download")) == {"download@fashion_mnist"}
    changes = json.loads(unchanged.dvc("status", "--json", "preprocess"))["preprocess"][0]["changed deps"]
    assert changes["data/fashion_mnist"] == "deleted"


def test_the_way_back_is_restored_from_the_run_cache(tried: Clone) -> None:
    tried.git("checkout", "params.yaml")
    output = tried.dvc("repro")
    assert (ran(output), restored(output)) == (set(), {"train", *SAMPLES, *SCORES}), output
    assert tried.git("status", "--porcelain") == ""
