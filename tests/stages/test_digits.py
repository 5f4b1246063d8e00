"""scikit-learn's digits, 8 x 8 and of 17 levels, by a user's own route: from pictures to a network that learns them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from ddpm.classifier.fit import fit_classifier
from ddpm.classifier.model import accuracy
from ddpm.compute.device import Runtime
from ddpm.images.splits import load_split
from ddpm.pipeline.params import load_params
from ddpm.pipeline.stage import Stage
from ddpm.training.loop import LossPoint
from ddpm.training.setup import new_training, prepare
from scripts.check_params import AllParams
from stages.preprocess import main
from tests.stages.written import classifier_params

CPU = Runtime(torch.device("cpu"), torch.float32)
PARAMS = load_params(AllParams, path=Path(__file__).parents[2] / "params.yaml")


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 1,797 of them in data/processed."""
    monkeypatch.chdir(tmp_path)
    levels, labels = load_digits(return_X_y=True)
    for number, (row, label) in enumerate(zip(levels, labels, strict=True)):
        folder = Path("data/digits", str(label))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((row.reshape(8, 8) * 255 / 16).round().astype(np.uint8)).save(folder / f"{number:04}.png")
    params = PARAMS.data.model_copy(update={"set": "data/digits"})
    Path("params.yaml").write_text(json.dumps({"data": params.model_dump(mode="json")}))
    stage = Stage("preprocess")
    stage.item = "data/digits"
    main(stage)


@pytest.mark.long
@pytest.mark.usefixtures("digits")
def test_digits_of_eight_pixels_keep_their_size_and_are_learned() -> None:
    train, test = (load_split(Path(f"data/processed/{name}.safetensors")) for name in ("train", "test"))
    assert train.card.shape == (1, 8, 8)
    assert train.card.classes == tuple("0123456789")
    assert len(train.groups) + len(test.groups) == 1797
    assert sum(train.test_counts) == len(test.groups) == pytest.approx(180, abs=40)
    params = classifier_params(channels=16, images=20_000, epochs=20, batch_size=64, lr=0.01)
    assert accuracy(fit_classifier("digits", train.split, train.card, params, CPU), *test.split, CPU.device) > 0.95
    recipe = PARAMS.train.model_copy(update={"images": 6000, "log_every": 1, "warmup_steps": 0})
    setup = prepare(train, PARAMS.model, recipe)
    assert setup.model.channels == (128,)
    assert setup.train.batch_size == 64
    training = new_training(setup, PARAMS.schedule, None, CPU)
    losses = [event.loss for event in training.run() if isinstance(event, LossPoint)]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert training.validation.best
