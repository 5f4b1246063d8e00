"""`ddpm score`: the stage's scores, for images of any origin."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.cli import reading, score
from ddpm.cli.reading import held_out_count, read_real, read_samples
from ddpm.images.card import DataCard
from ddpm.images.splits import load_split
from ddpm.processes.device import start
from ddpm.scores import c2st, judges
from ddpm.scores.classifier import Classifier, save_classifier
from exact_stages.console import UserError
from exact_stages.files import read_yaml
from exact_stages.stage import Stage
from stages import evaluate, preprocess
from tests.cli.generating import call
from tests.small import FRUITS, images
from tests.stages.written import DATA, classifier_params, data_params, link_code, write_samples, write_split

ROOT = Path(__file__).parents[2]
NAMES = FRUITS.classes
CARD = DataCard(name="real", shape=(3, 16, 16), classes=NAMES)
LEVELS, LABELS = images(420, CARD.shape), torch.arange(420) % 3
REAL, SAMPLES = slice(0, 300), slice(300, 420)


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short trainings of few images, and a cache of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(c2st, "STEPS", 1)
    monkeypatch.setattr(c2st, "LEAST_IMAGES", 90)
    monkeypatch.setattr(score, "CLASSIFIER_IMAGES", 300)
    monkeypatch.setattr(score, "user_cache_path", lambda _: tmp_path / "cache")


def folder(path: Path, levels: Tensor, labels: Tensor | None = None, suffix: str = "png") -> Path:
    """A folder of images, in class folders if there are labels."""
    for index, image in enumerate(levels.permute(0, 2, 3, 1).numpy()):
        file = path / ("" if labels is None else NAMES[int(labels[index])]) / f"{index:04d}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return path


def scored(*words: object) -> dict[str, Any]:
    call("score", *words, "--out", "scores.json")
    found: dict[str, Any] = json.loads(Path("scores.json").read_text())
    return found


def as_folder() -> Path:
    """As most generators write them: all files of a class after those of another."""
    order = LABELS[SAMPLES].argsort(stable=True)
    return folder(Path("samples"), LEVELS[SAMPLES][order], LABELS[SAMPLES][order])


def as_npz() -> Path:
    names = np.array(NAMES[::-1])  # in another order than the real images
    levels, labels = LEVELS[SAMPLES].permute(0, 2, 3, 1).numpy(), 2 - LABELS[SAMPLES].numpy()
    np.savez("samples.npz", images=levels, labels=labels, classes=names)
    return Path("samples.npz")


@pytest.mark.parametrize("written", [as_folder, as_npz])
def test_samples_in_any_form_are_the_same_images_of_the_same_classes(written: Callable[[], Path]) -> None:
    real = read_real(folder(Path("real"), LEVELS[REAL], LABELS[REAL]), data_params())
    found = read_samples(written(), real)
    both = {(image.numpy().tobytes(), int(label)) for image, label in zip(found.images, found.labels, strict=True)}
    given = zip(LEVELS[SAMPLES], LABELS[SAMPLES], strict=True)
    assert both == {(image.numpy().tobytes(), int(label)) for image, label in given}
    assert found.labels[:40].bincount(minlength=3).min() > 5  # scores of equal counts take the first ones
    assert len(real.train.split.labels) + len(real.test.split.labels) == 300
    assert len(real.test.split.labels) == pytest.approx(held_out_count(300), abs=5)


def test_near_duplicates_leave_enough_held_out_images_to_find_copies() -> None:
    levels, labels = LEVELS[[*range(292), *range(8)]], LABELS[[*range(292), *range(8)]]
    levels[292:, 0, 0, 0] ^= 1
    real = read_real(folder(Path("real"), levels, labels), data_params())
    assert len(real.test.split.labels) == 100


def test_samples_of_sixteen_bits_have_the_range_of_the_real_images() -> None:
    sixteen = LEVELS.permute(0, 2, 3, 1).numpy().astype(np.uint16)
    card = CARD.model_copy(update={"source_range": (0.0, 4095.0)})
    write_split("train", card, LEVELS[:250], LABELS[:250])
    write_split("test", card, LEVELS[250:300], LABELS[250:300])
    np.savez("samples.npz", images=sixteen[:9])  # darker: alone, their range would be 0 to 1,023
    found = read_samples(Path("samples.npz"), read_real(Path("data/processed/train.safetensors"), data_params()))
    assert {image.numpy().tobytes() for image in found.images} == {
        image.tobytes() for image in np.rint(sixteen[:9].transpose(0, 3, 1, 2) * 255 / 4095).astype(np.uint8)
    }


def test_the_pipelines_files_have_the_scores_of_the_stage() -> None:
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        save_classifier(Path(f"models/classifier-{name}.safetensors"), Classifier(classifier_params(seed=seed), CARD))
    write_split("train", CARD, LEVELS[:250], LABELS[:250])
    write_split("test", CARD, LEVELS[250:300], LABELS[250:300])
    for name in ("scored", "filtered"):
        write_samples(name, CARD, LEVELS[SAMPLES], LABELS[SAMPLES], [0, 1, 2])
    found = scored(
        "--real=data/processed/train.safetensors", "--samples=data/samples/filtered.safetensors", "--classifiers=models"
    )
    Path("params.yaml").write_text("{}\n")
    evaluate.main(Stage("evaluate"))
    assert found | {"made_in": start().name} == json.loads(Path("metrics/evaluate/scores.json").read_text())


def test_a_second_call_trains_nothing_and_a_page_needs_no_other_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "--real", folder(Path("real"), LEVELS[REAL], LABELS[REAL]), "--samples", as_folder()
    found = scored(*words, "--page", "pages/score.html")
    printed = capsys.readouterr().out
    assert re.search(r"^C2ST accuracy +\d+\.\d%", printed, re.MULTILINE)
    assert "conditional accuracy" in printed
    monkeypatch.setattr(score, "fit_classifiers", None)
    assert scored(*words) == found
    page = Path("pages/score.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=.?(?!data:)", page.replace('src="data:', ""))
    next(Path("cache").rglob("*-a.safetensors")).write_bytes(b"damaged")
    with pytest.raises(TypeError):
        scored(*words)


def test_a_set_by_its_name_is_judged_by_the_judge_of_its_images_and_trains_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str, place: Path) -> None:
        folder(place, LEVELS[REAL], LABELS[REAL])

    monkeypatch.setattr(reading, "fetch", fetch)
    monkeypatch.setattr(reading, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setattr(score, "fit_classifiers", None)
    real = read_real(reading.named(Path("mnist")), data_params(set="mnist"))
    save_classifier(tmp_path / "new/mnist-b-1-0123abcd.safetensors", Classifier(classifier_params(), real.train.card))
    monkeypatch.setattr(judges, "JUDGES", tmp_path / "new")
    found = scored("--real", "mnist", "--samples", as_folder())
    scale = f"mnist-b-1 (0123abcd), another scale: {found['count']} images"
    assert found["scale"].startswith(scale)
    printed = capsys.readouterr().out
    assert f"note: {scale}" in printed
    for name in ("Frechet distance", "conditional accuracy", "precision", "recall"):
        assert f"{name} by mnist-b-1 (0123abcd), another scale " in printed
    assert found["count"] <= int((~judges.halves(real.train)).sum()) // 2


def test_images_of_other_sizes_without_classes_are_scored(capsys: pytest.CaptureFixture[str]) -> None:
    real = folder(Path("real"), LEVELS[REAL].repeat(1, 1, 2, 2), suffix="jpg")
    found = scored("--real", real, "--samples", folder(Path("samples"), LEVELS[SAMPLES]), "--image-size=24")
    assert "samples of 16 x 16 are resized to 24 x 24" in capsys.readouterr().out
    assert "conditional_accuracy" not in found["samples"]


def other_classifiers() -> None:
    as_folder()
    for name in "ab":
        save_classifier(Path(f"models/classifier-{name}.safetensors"), Classifier(classifier_params(), FRUITS))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: None, "", "no such file or folder"),
        (lambda: Path("samples").touch(), "", "must be a folder or an .npz file"),
        (lambda: (as_folder() / "fig").rename("samples/plum"), "", "no class plum"),
        (lambda: folder(Path("samples"), LEVELS[:3], torch.tensor([0, 0, 0])), "", "too few"),
        (as_folder, "--page real", "is a folder"),
        (other_classifiers, "--classifiers models", "leave --classifiers out"),
        (lambda: (as_folder(), Path("cache").touch()), "", "cache/classifiers: .* XDG_CACHE_HOME"),
    ],
)
def test_mistakes_end_in_one_line(make: Callable[[], object], options: str, message: str) -> None:
    real = folder(Path("real"), LEVELS[:90], LABELS[:90])
    make()
    with pytest.raises(UserError, match=message):
        call("score", "--real", real, "--samples", "samples", "--out", "scores.json", *options.split())
    assert not Path("scores.json").exists()
    assert not Path("cache").is_dir()  # before anything is trained


def test_the_pipelines_classifiers_are_taken_for_the_images_that_they_learned_alone() -> None:
    link_code("dvc.yaml", "pyproject.toml", "constraints.txt")
    real = folder(Path("real"), LEVELS[REAL], LABELS[REAL])
    data = {"data": DATA | {"set": "real", "range": None}}
    Path("params.yaml").write_text(json.dumps(read_yaml(ROOT / "params.yaml") | data))
    preprocess.main(Stage("preprocess"))
    split_file = load_split(Path("data/processed/train.safetensors"))
    for name in "ab":
        network = Classifier(classifier_params(), split_file.card)
        save_classifier(Path(f"models/classifier-{name}.safetensors"), network)
    words = "--samples", as_folder(), "--classifiers", "models", "--real"
    held_out = Counter(LABELS[REAL].tolist()) - Counter(split_file.split.labels.tolist())
    assert scored(*words, real)["test"]["images"] == pytest.approx(3 * min(held_out.values()), abs=1)
    other = folder(Path("other"), 255 - LEVELS[REAL], LABELS[REAL])
    with pytest.raises(UserError, match="leave --classifiers out"):
        call("score", *words, other)


def test_of_few_images_a_third_and_of_many_a_tenth_is_held_out() -> None:
    assert [held_out_count(count) for count in (200, 3000, 10_000, 50_000)] == [100, 1000, 2000, 5000]
