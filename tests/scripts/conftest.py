"""A small repository of DVC: two stages that ran, on a folder that DVC tracks."""

import shutil
from pathlib import Path

import pytest

from tests.with_dvc.dvc_clone import Clone, environment, identify

PIPELINE = """
stages:
  check:
    cmd: echo valid > data/checked.txt
    deps: [library]
    params: [params.yaml: ]
    outs: [data/checked.txt]
  train:
    cmd: >
      mkdir -p models metrics/train && echo ${lr} | cat - data/mine/1 > models/ddpm.bin &&
      echo '{"parameters": 7, "images_seen": ${lr}0}' > metrics/train/summary.json
    deps: [library, data/mine, data/checked.txt]
    params: [lr]
    outs: [models/ddpm.bin]
    metrics: [metrics/train/summary.json: {cache: false}]
  likelihood:
    cmd: mkdir -p metrics/likelihood && ! grep 9 models/ddpm.bin && echo '{}' > metrics/likelihood/bits.json
    deps: [models/ddpm.bin]
    params: [count]
    metrics: [metrics/likelihood/bits.json: {cache: false}]
"""
PARAMS = "lr: 2\ncount: 5\nunread: 0\ndata: {set: data/mine}\n"
FILES = {
    "dvc.yaml": PIPELINE,
    "library/code.py": "",
    "data/mine/1": "one",
    "data/mine/deep/2": "two",
    ".dvcignore": "__pycache__/\n",
}
FILES["params.yaml"] = PARAMS.replace("lr: 2", "lr: 1")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The tag `first` is the commit before the last."""
    clone = Clone(tmp_path_factory.mktemp("runs") / "clone")
    clone.path.mkdir()
    clone.git("init", "--quiet", "--initial-branch", "main")
    identify(clone)
    clone.dvc("init", "--quiet")
    for name, text in FILES.items():
        (clone.path / name).parent.mkdir(parents=True, exist_ok=True)
        (clone.path / name).write_text(text)
    clone.dvc("add", "--quiet", "data/mine")
    clone.dvc("repro", "--quiet")
    clone.commit()
    clone.git("tag", "first")
    (clone.path / "params.yaml").write_text(PARAMS)
    clone.dvc("repro", "--quiet")
    clone.commit()
    return clone


@pytest.fixture
def clone(built: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    shutil.copytree(built.path, tmp_path / "clone", symlinks=True)
    monkeypatch.chdir(tmp_path / "clone")
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return Clone(tmp_path / "clone")
