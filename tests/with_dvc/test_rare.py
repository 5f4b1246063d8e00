"""The study of rare classes with real dvc: none by default, and small as an experiment that is kept in docs/."""

import json

import pytest
import torch
from ruamel.yaml import YAML

from ddpm.images.splits import load_split
from ddpm.networks.checkpoint import load_model
from ddpm.study.study import load_drawn
from tests.with_dvc.dvc_clone import Clone, ran

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
STAGES = ["cut", "rare_train", "rare_draw", "rare_choose", "rare_confirm"]
SMALL = [
    "cut.sets=[20-0]",
    "cut.classes=[2,8]",
    "cut.spare=20",
    "train.classes=all",
    "rare_train.images=3000",
    "rare_draw.rare=12",
    "rare_draw.frequent=2",
    "rare_draw.steps=2",
    "rare_learn.steps=5",
    "rare_learn.channels=2",
    "rare_choose.sets=[20-0]",
    "rare_confirm.sets=[20-0]",
    "rare_oracle.seeds=[0]",
]
ARMS = ["nothing", "oversample+augment+drawn+filtered"]
TARGETS = ["rare_choose", "rare_confirm", "rare_oracle"]


def test_by_default_there_is_no_such_stage(clone: Clone) -> None:
    assert clone.dvc("status").strip() == "Data and pipelines are up to date."
    listed = clone.dvc("status") + clone.dvc("repro", "--dry") + clone.dvc("stage", "list")
    assert "rare" not in listed
    assert "cut@" not in listed


def test_a_small_study_runs_and_keeps_what_it_gave(clone: Clone) -> None:
    arms = f"rare_confirm.arms=[{','.join(ARMS)}]"
    output = clone.run("scripts/variant.sh", "small-study", *TARGETS, *SMALL, arms)
    assert ran(output) == {*(f"{name}@20-0" for name in STAGES), "rare_oracle@0"}, output
    assert clone.git("status", "--short").strip() == "?? docs/small-study/"  # the workspace is as it was
    folder = clone.path / "docs/small-study"
    assert {path.name for path in (folder / "metrics").iterdir()} == {
        f"rare_{name}" for name in ("train", "draw", "choose", "confirm", "oracle")
    }
    assert YAML(typ="safe").load(folder / "params.yaml")["cut"]["sets"] == ["20-0"]
    confirmed = json.loads((folder / "metrics/rare_confirm/20-0.json").read_text())
    assert confirmed["rare"] == {"2": 2, "8": 8}
    assert [*confirmed["arms"]] == ARMS
    for each in confirmed["arms"].values():
        assert torch.tensor(each["confusions"]).sum((1, 2)).tolist() == [10_000] * 3
    assert (folder / "metrics/rare_draw/20-0.png").read_bytes().startswith(b"\x89PNG")
    clone.run("python", "-m", "scripts.rare", "docs/small-study")
    assert (folder / "f1.png").is_file()


def test_files_of_a_cut_have_what_its_params_say(clone: Clone) -> None:
    options = [f"--set-param={setting}" for setting in SMALL]
    clone.dvc("exp", "run", *options, "rare_draw@20-0")
    train, left_out = (load_split(clone.path / f"data/cut/20-0/{name}.safetensors") for name in ("train", "left_out"))
    counts = train.split.labels.bincount().tolist()
    assert [counts[2], counts[8]] == [20, 20]
    assert min(count for label, count in enumerate(counts) if label not in (2, 8)) > 5000
    assert left_out.split.labels.bincount().tolist() == [20] * 10
    card = load_model(clone.path / "models/rare/20-0.safetensors").card
    assert list(card.class_counts) == counts
    drawn = load_drawn(clone.path / "data/rare/20-0.safetensors")
    assert drawn.labels.bincount().tolist() == [12 if label in (2, 8) else 2 for label in range(10)]
    assert clone.dvc("status", "rare_draw@20-0").strip() == "Data and pipelines are up to date."


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cut.sets=[a-b]", "must be a count and a seed, such as 50-0"),
        ("cut.sets=[9000-0]", "cut: class 2 has 5958 different images, of which 9000 are to stay"),
        ("cut.classes=[two]", "cut.classes: no class is named two"),
        ("rare_draw.filter=oversample+hope", "there is no word 'hope' here"),
    ],
)
def test_what_cannot_be_cut_or_learned_is_one_line(clone: Clone, setting: str, message: str) -> None:
    name = setting.split("=")[0]
    settings = [setting, *(each for each in SMALL if not each.startswith(f"{name}="))]
    printed = clone.dvc("exp", "run", "--temp", *(f"--set-param={each}" for each in settings), "rare_draw", code=255)
    assert message in printed
    assert "Traceback" not in printed
