"""Each edit reruns exactly the stages that it can change, and what comes out equal stops the chain."""

import json
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.with_dvc.dvc_clone import STAGES, Built, Clone, copy_clone, ran, restored

pytestmark = pytest.mark.pipeline
SAMPLES = {"sample@gallery", "sample@population"}
CLASSIFIERS = {"classifier@a", "classifier@b"}
UP_TO_DATE = "Data and pipelines are up to date."


@pytest.fixture(scope="module")
def own(pipeline: Built, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy for this module: of the pipeline itself others may be taking theirs."""
    return copy_clone(pipeline.clone, tmp_path_factory.mktemp("own"))


@pytest.fixture
def unchanged(own: Clone) -> Iterator[Clone]:
    """A copy for edits that are only looked at: no stage runs."""
    yield own
    own.git("checkout", ".")
    own.git("clean", "-fdq", "src", "stages")


@pytest.mark.long
def test_a_comment_reruns_the_stages_of_the_package_and_none_behind(clone: Clone) -> None:
    clone.append("src/ddpm/unet.py", "# a comment, which changes no output")
    output = clone.dvc("repro")
    assert (ran(output), restored(output)) == ({"train", *SAMPLES, "likelihood"}, set()), output


def changed(clone: Clone) -> dict[str, set[str]]:
    """The stages but `check` that each changed section or dependency reaches itself, not by way of other stages."""
    found: dict[str, set[str]] = defaultdict(set)
    stages = json.loads(clone.dvc("status", "--json"))
    stages.pop("check", None)
    for stage, entries in stages.items():
        for entry in entries:
            deps = entry.get("changed deps", {})
            for name in [*deps.pop("params.yaml", {}), *deps]:
                found[name].add(stage)
    return dict(found)


def test_a_param_reaches_the_stages_that_read_it(unchanged: Clone) -> None:
    unchanged.edit_params(
        {"data.fit": "pad", "model.time_embed_dim": 32, "sample.population.seed": 3, "likelihood.images": 9}
    )
    assert changed(unchanged) == {
        "data": {"preprocess"},
        "model": {"train"},
        "sample.population": {"sample@population"},
        "likelihood": {"likelihood"},
    }


def test_an_edit_reaches_the_stages_that_import_the_file_or_its_package(unchanged: Clone) -> None:
    for path in [*unchanged.path.glob("src/ddpm/*/__init__.py"), *unchanged.path.glob("src/*/*.py")]:
        path.write_text(f"{path.read_text()}# a comment")
    unchanged.append("stages/classifier.py", "# a comment")
    unchanged.append("params.yaml", "# a comment")
    found = changed(unchanged)
    assert found.pop("stages/classifier.py") == CLASSIFIERS
    assert found["src/exact_stages"] == {*STAGES}
    assert found["src/ddpm/train.py"] == {"train"}
    assert found["src/ddpm/unet.py"] == {"train", *SAMPLES, "likelihood"}
    assert found["src/ddpm/schedule.py"] == {"forward_diffusion", "train", *SAMPLES, "likelihood"}
    assert found["src/ddpm/parallel"] == {"train", *SAMPLES}
    assert found["src/ddpm/sample.py"] == SAMPLES
    assert found["src/ddpm/pictures"] == {"forward_diffusion", "evaluate"}
    assert "src/ddpm/cli" not in found


def test_what_python_editors_and_systems_leave_reaches_no_stage(unchanged: Clone) -> None:
    folders = [path.parent for path in unchanged.path.glob("src/ddpm/**/__init__.py")]
    for folder in [*folders, unchanged.path / "stages"]:
        (folder / "__pycache__").mkdir(exist_ok=True)
        for name in ("__pycache__/x.pyc", ".DS_Store", "Thumbs.db", ".a.py.swp", "a.py~", "#a.py#"):
            (folder / name).touch()
        (folder / ".#a.py").symlink_to("user@machine.123")  # as Emacs leaves it
    assert unchanged.dvc("status").strip() == UP_TO_DATE
    unchanged.append("src/ddpm/train.py", "# a comment")
    assert changed(unchanged) == {"src/ddpm/train.py": {"train"}}


def test_another_data_set_is_downloaded_and_preprocessed(unchanged: Clone) -> None:
    unchanged.edit_params({"data.set": "data/fashion_mnist", "download.sets": ["fashion_mnist"]})
    assert ran(unchanged.dvc("repro", "--dry", "download")) == {"download@fashion_mnist"}
    assert changed(unchanged)["data/fashion_mnist"] == {"preprocess"}
