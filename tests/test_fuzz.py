"""Ten thousand damaged files for each loader: every one loads or is refused by name, and none takes much memory."""

import resource
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import torch

from ddpm.classifier.model import Classifier, ClassifierParams, load_classifier, save_classifier
from ddpm.diffusion.schedule import NoiseSchedule, ScheduleParams
from ddpm.images.splits import load_split, save_split
from ddpm.networks.checkpoint import load_model, save_model
from ddpm.networks.unet import UNet
from ddpm.parallel.resume import State
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import load_params
from ddpm.training.recipe import TrainParams
from tests.small import DIGITS, FRUITS, images, unet_params

MUTANTS = 10_000
MEGABYTES = 1000  # by which the process may grow
SCHEDULE = NoiseSchedule(ScheduleParams(timesteps=10, beta_start=0.01, beta_end=0.5))
COUNTS = [0] * 7 + [6265, 0, 0]
NETWORK = unet_params(channels=(2,), time_embed_dim=2, class_conditional=True, prediction="v")
PARAMS = """train:
  images: 330000
  epochs: 4
  batch_size: 64
  optimizer: muon
  lr: 0.003
  lr_decay: cosine
  warmup_steps: 100
  ema_decay: 0.999
  loss: v
  timestep_sampling: stratified
  log_snr_center: -1.0
  classes: [1, 7]
  class_balance: 0.5
  label_dropout: 0.1
  early: 0.06
  flip: false
  start: data/processed/train.safetensors
  validation: 0.02
  log_every: 20
  seed: 0
"""


def mutants(original: bytes, seed: int) -> Iterator[bytes]:
    """Bits flipped, bytes replaced, numbers blown up, pieces cut, doubled, moved or put in from elsewhere."""
    chance = Random(seed)
    for _ in range(MUTANTS):
        data = bytearray(original)
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            # Headers decide most, so half of the damage is at the start.
            at = chance.randrange(len(data) if chance.random() < 0.5 else min(len(data), 600)) if data else 0
            length = chance.choice((1, 2, 4, 8, 64))
            match chance.randrange(8):
                case 0:
                    data[at : at + 1] = bytes([data[at] ^ 1 << chance.randrange(8)]) if data else b""
                case 1:
                    data[at : at + length] = chance.randbytes(length)
                case 2:
                    data[at : at + 8] = struct.pack(
                        chance.choice("<>") + "Q", chance.choice((0, 2**31, 2**63, 2**64 - 1))
                    )
                case 3:
                    del data[at:]
                case 4:
                    del data[at : at + length]
                case 5:
                    data[at:at] = data[at : at + length]
                case 6:
                    data[at:at] = chance.choice(
                        (b"\0", b"9", b'"', b"{", b"[", b"&a *a", b"-1e999", b"\xff\xfe", b"\n")
                    )
                case 7:
                    other = chance.randrange(len(data) + 1)
                    data[at : at + length] = data[other : other + length]
        yield bytes(data)


def refused(original: bytes, load: Callable[[bytes], object]) -> int:
    """How many of the mutants were refused; any error but the documented one fails the test."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0
    for number, data in enumerate(mutants(original, seed=0)):
        try:
            load(data)
        except UserError:
            count += 1
        except Exception as error:
            pytest.fail(f"mutant {number}, {data[:200]!r}: {error!r}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # kilobytes, on Linux
    assert grown < MEGABYTES
    return count


def from_file(path: Path, load: Callable[[Path], object]) -> Callable[[bytes], object]:
    def write_and_load(data: bytes) -> object:
        path.write_bytes(data)
        return load(path)

    return write_and_load


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    save_arrays(path, {"images": torch.zeros(4, 3), "labels": torch.arange(4)}, {"classes": [1, 2]})
    assert refused(path.read_bytes(), from_file(path, load_arrays)) > MUTANTS / 2


def test_splits(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    labels = torch.tensor([2, 0, 1, 2])
    save_split(path, FRUITS, labels, torch.tensor([0, 1, 1, 3]), (6, 0, 2), [images(4, FRUITS.shape)])

    def load(path: Path) -> None:
        card, split, groups, test_counts = load_split(path)
        assert split.images.shape == (len(split.labels), *card.shape)
        assert len(split.labels) == len(groups) > 0
        assert split.labels.max() < len(card.classes)
        assert groups.max() < len(groups)
        assert len(test_counts) == len(card.classes)
        assert min(test_counts) >= 0

    assert refused(path.read_bytes(), from_file(path, load)) > MUTANTS / 3


def test_model_files(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    now, before = UNet(NETWORK, SCHEDULE, DIGITS), UNet(NETWORK, SCHEDULE, DIGITS)
    save_model(path, now, SCHEDULE, tuple(COUNTS), early=before.state_dict(), unlabelled=True)
    assert refused(path.read_bytes(), from_file(path, load_model)) > MUTANTS / 3


def test_classifier_files(tmp_path: Path) -> None:
    params = ClassifierParams(channels=1, images=1, epochs=1, batch_size=2, lr=0.1, shift=0, seed=0)
    path = tmp_path / "classifier.safetensors"
    save_classifier(path, Classifier(params, DIGITS))
    assert refused(path.read_bytes(), from_file(path, load_classifier)) > MUTANTS / 3


def test_params(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    load = from_file(path, lambda path: load_params(TrainParams, "train", path))
    load(PARAMS.encode())
    assert refused(PARAMS.encode(), load) > MUTANTS / 3


def test_states_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    state = State("train", "0" * 64)
    state.save({"weights": torch.arange(12.0)}, {"rows": [1, 2]})
    path = state.folder / "0.safetensors"

    def load(_path: Path) -> None:
        if saved := state.load():
            assert torch.equal(saved.arrays["weights"], torch.arange(12.0))
            assert saved.facts["rows"] == [1, 2]
        else:
            raise UserError("no state")

    assert refused(path.read_bytes(), from_file(path, load)) > MUTANTS / 2


def test_a_card_that_claims_a_giant_network_costs_no_memory(tmp_path: Path) -> None:
    giant = NETWORK.model_copy(update={"channels": (2048,), "bottleneck_blocks": 16, "patch_size": 1})
    path = tmp_path / "model.safetensors"
    data = DIGITS.model_dump(mode="json")
    model, schedule = giant.model_dump(mode="json"), SCHEDULE.params.model_dump()
    card = {"data": data, "model": model, "schedule": schedule, "class_counts": COUNTS}
    classifier = ClassifierParams(channels=1024, images=1, epochs=1, batch_size=2, lr=0.1, shift=0, seed=0)
    save_arrays(path, {"weight": torch.zeros(1)}, {"card": card, "classifier": classifier.model_dump(), "data": data})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for load in (load_model, load_classifier):
        with pytest.raises(UserError, match=r"^[^\n]*: the weights do not fit the network [^\n]*$"):
            load(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100
