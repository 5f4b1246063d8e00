"""dvc.yaml declares what the code reads and writes: code, params and outputs, as DVC itself resolves them."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.utils.flatten import flatten
from dvc.utils.serialize import load_yaml, modify_yaml
from pydantic import BaseModel
from ruamel.yaml import YAML

from exact_stages.code import lines_of, packages
from exact_stages.commands import write
from exact_stages.params import Sections, load_params

ROOT = Path(__file__).parents[1]
PIPELINE: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")
NAMES = [name for name in PIPELINE["stages"] if name != "code"]

SHARED_SECTIONS = {"data", "schedule", "model"}
every_stage = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dvc.yaml and params.yaml of MNIST in a repository of DVC's, with an item in the matrix that is empty there."""
    folder = tmp_path_factory.mktemp("project")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["distill"]["steps"] = [4]
    params["data"]["set"] = "data/mnist"  # or the stage download reads nothing
    yaml.dump(params, folder / "params.yaml")
    shutil.copy(ROOT / "dvc.yaml", folder)
    Repo.init(str(folder), no_scm=True).close()
    return folder


@pytest.fixture(scope="module")
def stages(project: Path) -> dict[str, PipelineStage]:
    with Repo(str(project)) as repo:
        return {stage.name: stage for stage in repo.index.stages}


def items(stages: dict[str, PipelineStage], name: str) -> dict[str, PipelineStage]:
    """The stages of one name, by the item of its matrix, which is empty where there is no matrix."""
    found = {whole.partition("@")[2]: stage for whole, stage in stages.items() if whole.split("@")[0] == name}
    assert found
    return found


def test_stages_are_the_scripts() -> None:
    assert {*NAMES} == {path.stem for path in ROOT.glob("stages/[!_]*.py")}


def test_each_stage_depends_on_its_code_which_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    write(check=True)
    assert all(f"code/{name}.txt" in PIPELINE["stages"][name]["deps"] for name in NAMES)
    assert not any(dep.endswith(".py") for stage in PIPELINE["stages"].values() for dep in stage.get("deps", []))


def test_no_stage_imports_more_than_the_pipeline_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage code follows the imports of all stages, of studies too: where one is missing, `make repro` ends."""
    monkeypatch.chdir(ROOT)
    for path in Path("code").glob("*.txt"):
        assert {name for name in lines_of(path.read_text()) if not name.endswith(".py")} <= {*packages()}, path


def test_imports_run_one_way() -> None:
    """From the stages to the library, and from there to exact_stages, which knows of no diffusion: in no circle."""

    def place(module: str) -> str:
        return ".".join(module.split(".")[:2])

    graph: dict[str, set[str]] = {}
    for path in ROOT.glob("src/*/**/*.py"):
        module, text = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts), path.read_text()
        ours = module.startswith("exact_stages")
        empty = path.name == "__init__.py" and path.parent.name not in ("ddpm", "exact_stages")
        assert not (empty and text), f"{path}: a package has no code of its own"
        assert not ours or not re.search(r"ddpm|torch|diffusion|noise|sampl", text, re.IGNORECASE), path
        found = re.findall(r"^\s*(?:from|import) ((?:ddpm|exact_stages|stages|scripts)\b[\w.]*)", text, re.MULTILINE)
        beside = re.findall(r"^\s*from \.(\w+) import", text, re.MULTILINE)
        found += [f"{module.rpartition('.')[0]}.{name}" for name in beside]
        assert not re.search("^(stages|scripts)", "\n".join(found), re.MULTILINE), path
        graph.setdefault(place(module), set()).update({*map(place, found)} - {place(module)})
    assert [*TopologicalSorter(graph).static_order()]


class Listener:
    """A stage that notes which params its script asks for, and ends the script at its first input."""

    writes = True

    def __init__(self, item: str) -> None:
        self.item = item
        self.sections: set[str] = set()

    def params(self, model: type[BaseModel], section: str = "") -> BaseModel:
        prefix = f"{section}." if section else ""
        fields = {f"{prefix}{field}" for field in model.model_fields}
        self.sections |= fields if issubclass(model, Sections) else {section}
        return load_params(model, section)

    def input(self, path: Path) -> Path:
        raise EOFError


@every_stage
def test_params_are_the_sections_that_the_script_reads(
    name: str, stages: dict[str, PipelineStage], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    for item, stage in items(stages, name).items():
        declared = [section for dep in stage.deps for section in getattr(dep, "params", [])]
        if name == "check":
            assert not declared
            whole = [dep.def_path for dep in stage.deps if isinstance(dep, ParamsDependency)]
            assert whole == ["params.yaml"], "check depends on all params"
            continue
        listener = Listener(item)
        monkeypatch.setattr("stages.download.fetch", lambda _, folder, into=listener: into.input(folder))
        with pytest.raises(EOFError):
            importlib.import_module(f"stages.{name}").main(listener)
        assert sorted(declared) == sorted(listener.sections)
        assert {section.split(".")[0] for section in declared} <= {name, *SHARED_SECTIONS}


def test_params_yaml_holds_what_the_stages_read_and_no_more(stages: dict[str, PipelineStage]) -> None:
    read = {key.split(".")[0] for stage in stages.values() for dep in stage.deps for key in getattr(dep, "params", [])}
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    assert {*params} == read
    names = {name for key in flatten(params) for name in key.split(".")}
    assert not {"size", "nfiles"} & names, "DVC leaves these out of the keys of its run cache"


def test_params_yaml_stays_whole_when_dvc_empties_a_list(tmp_path: Path) -> None:
    path = shutil.copy(ROOT / "params.yaml", tmp_path)
    for steps in ([4], []):
        with modify_yaml(path) as params:  # as `dvc exp run -S` does
            params["distill"]["steps"] = steps
    assert load_yaml(path) == load_yaml(ROOT / "params.yaml")


@every_stage
def test_git_keeps_what_lies_in_the_metrics_folder_and_dvc_the_rest(
    name: str, stages: dict[str, PipelineStage]
) -> None:
    for stage in items(stages, name).values():
        for out in stage.outs:
            assert out.def_path.startswith(("data/", "models/") if out.use_cache else f"metrics/{name}/")
            ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", out.def_path], cwd=ROOT)
            assert (ignored.returncode == 0) == out.use_cache, out.def_path
            # DVC keeps a stage with another kind of uncached output out of the run cache, and one that persists.
            assert out.use_cache or out.metric or out.plot
            assert not out.persist or name == "download"


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish"])  # DVC runs commands in the shell of the user
def test_a_command_runs_its_script_and_train_and_sample_alone_are_launched(
    shell: str, stages: dict[str, PipelineStage], tmp_path: Path
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    real = f"case $1 in *launch.py) exec {sys.executable} $*; esac"
    for program in ("python", "torchrun"):
        (tmp_path / program).write_text(f'#!/bin/sh\n{real}\necho "$STAGE_PARENT" {program} "$@"\n')
        (tmp_path / program).chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    for launch in ({}, {"DDPM_LAUNCH": "torchrun --nproc-per-node 2"}):
        for address, stage in stages.items():
            name, _, item = address.partition("@")
            if name == "code":
                continue
            printed = subprocess.run(
                [shell, "-c", stage.cmd], cwd=ROOT, env=environment | launch, capture_output=True, text=True, check=True
            ).stdout
            launched = bool(launch) and name in ("train", "sample")
            launcher = launch["DDPM_LAUNCH"] if launched else "python"
            parent = 0 if launched else "" if shell == "fish" else os.getpid()  # which has no PPID
            assert printed == f"{parent} {launcher} -m stages.{name}{' ' * bool(item)}{item}\n"
