"""Pictures of one's own with real dvc: `dvc add`, one experiment, and all that the pipeline makes is of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.diffusion.model import load_model
from ddpm.images.arrays import load_arrays
from ddpm.images.splits import load_split
from ddpm.scores.classifier import load_classifier
from tests.with_dvc.dvc_clone import PICTURES, STAGES, Clone, build_once, new_clone, ran, read_json, restored, stale

pytestmark = pytest.mark.long
CLASSES = ("010", "no", "red apple")  # in natural order
SMALL = {"data.test": 0.3, "train.classes": "all", "train.batch_size": 50, "classifier.images_seen": 100}


def draw(path: Path, seed: int, *shape: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Clone:
    """The repository before anything has run, and two folders of pictures that DVC and git know."""

    def build(folder: Path) -> tuple[Clone, str]:
        clone = new_clone(folder)
        clone.edit_params(SMALL)
        for number in range(120):
            draw(clone.path / f"data/mine/{CLASSES[number % 3]}/{number}.png", number, 16, 8, 3)
        for number in range(60):
            draw(clone.path / f"data/my kites/{number}.png", number, 28, 28)
        printed = clone.dvc("add", "data/mine", "data/my kites")
        clone.commit()
        return clone, printed

    return build_once(tmp_path_factory, worker_id, "own_images", build).clone


@pytest.fixture
def clone(bare: Clone, tmp_path: Path) -> Iterator[Clone]:
    shutil.copytree(bare.path, tmp_path / "clone", symlinks=True)
    yield Clone(tmp_path / "clone")
    shutil.rmtree(tmp_path)


def experiment(clone: Clone, *options: str) -> str:
    """What `dvc exp run` prints; an option with a dot sets a parameter."""
    return clone.dvc("exp", "run", *(f"--set-param={each}" if "." in each else each for each in options))


def everything_is_there(clone: Clone) -> None:
    lock = clone.lock()
    assert set(lock) == {*STAGES, "check", "code"}
    known = {"data/fashion_mnist", "data/mnist"}
    assert clone.bytes_under(*known).keys() == {f"{name}/README" for name in known}, "nothing is downloaded"
    made = clone.bytes_under("metrics", "models", "data/processed", "data/samples").keys()
    assert made | known | {"data/checked.txt", "code"} == {
        out["path"] for stage in lock.values() for out in stage["outs"]
    }
    for name in PICTURES:
        with Image.open(clone.path / name) as picture:
            picture.load()
    assert not stale(clone.dvc("status"))


def test_coloured_pictures_that_are_not_square(clone: Clone) -> None:
    classes = ("train.classes=[010,no,red apple]", "sample.classes=[no,010]")
    printed = experiment(clone, "data.set=data/mine", *classes, "model.channels=null", "model.patch_size=null")
    assert (ran(printed), restored(printed)) == ({*STAGES}, set()), printed
    assert "data.image_size: 16 x 8, their own\n" in printed
    assert "model.channels: [64, 128], chosen from the data\n" in printed
    everything_is_there(clone)

    card, split, _, _ = load_split(clone.path / "data/processed/train.safetensors")
    assert (card.name, card.shape, card.classes) == ("mine", (3, 16, 8), CLASSES)
    summary = read_json(clone.path / "metrics/preprocess/summary.json")
    assert summary["train"]["label_counts"].keys() == {*CLASSES}
    assert summary["train"]["images"] == len(split.images) == 120 - summary["test"]["images"]
    model = load_model(clone.path / "models/ddpm.safetensors")
    assert model.card.data == card == load_classifier(clone.path / "models/classifier-a.safetensors").data
    assert model.card.class_counts == tuple(summary["train"]["label_counts"].values())
    for name in ("preview", "scored"):
        arrays, facts = load_arrays(clone.path / f"data/samples/{name}.safetensors")
        assert arrays["images"].shape[1:] == (3, 16, 8)
        assert {*facts["classes"]} == {0, 1} >= {*arrays["labels"].tolist()}


def test_a_flat_folder_in_a_temporary_copy_is_one_class_that_no_score_of_classes_is_of(clone: Clone) -> None:
    printed = experiment(clone, "--temp", "--name", "apart", "data.set=data/my kites")
    assert (ran(printed), restored(printed)) == ({*STAGES}, set()), printed
    assert clone.git("status", "--porcelain") == "", "the workspace stays as it was"
    assert not (clone.path / "data/processed").exists()
    clone.dvc("exp", "apply", "apart")
    everything_is_there(clone)
    card = load_model(clone.path / "models/ddpm.safetensors").card.data
    assert (card.shape, card.classes) == ((1, 28, 28), ("my kites",))
    assert read_json(clone.path / "metrics/evaluate/scores.json")["samples"]["conditional_accuracy"] is None
    accuracy = read_json(clone.path / "metrics/classification_accuracy_score/accuracy.json")
    made_in = read_json(clone.path / "metrics/train/environment.json")["precision"]
    assert accuracy == {"count": 0, "samples": None, "real": None, "made_in": made_in}
    # What the copy has run, the workspace knows; another picture is noticed.
    output = clone.dvc("repro")
    assert (ran(output), restored(output)) == (set(), set()), output
    draw(clone.path / "data/my kites/another.png", 1000, 28, 28)
    recorded = (clone.path / "data/my kites.dvc").read_text()
    assert ran(clone.dvc("repro", "preprocess")) == {"preprocess"}
    assert (clone.path / "data/my kites.dvc").read_text() != recorded, "DVC has added it"


def test_any_character_may_stand_in_the_name_of_a_folder_and_none_is_run(clone: Clone) -> None:
    name = '$(touch hit) `touch hit`; touch hit | $HOME ${data.fit} {b} it\'s "b" a\\b é'
    (clone.path / "data/mine").rename(clone.path / f"data/{name}")
    clone.edit_params({"data.set": f"data/{name}"})
    clone.dvc("repro", "preprocess")
    assert load_split(clone.path / "data/processed/train.safetensors").card.name == name
    assert not stale(clone.dvc("status", "preprocess"))
    assert not [*clone.path.rglob("hit")]
