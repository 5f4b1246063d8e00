"""DVC's run cache, by its own functions: a param that changes must change the key of every stage that reads it."""

import copy
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.stage.cache import _can_hash, _get_cache_hash
from dvc.stage.serialize import to_single_stage_lockfile
from dvc_data.hashfile.hash_info import HashInfo
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
DVC_YAML = (ROOT / "dvc.yaml").read_text()
SAFE = YAML(typ="safe", pure=True)
PARAMS: dict[str, Any] = SAFE.load(ROOT / "params.yaml")
for section, name in re.findall(r"^    matrix:\n      \w+: \${(\w+)\.(\w+)}$", DVC_YAML, re.MULTILINE):
    PARAMS[section][name] = PARAMS[section][name] or [4]
ANY = HashInfo("md5", "0" * 32)


def leaves(values: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield from leaves(value, f"{above}{key}.") if isinstance(value, dict) else [f"{above}{key}"]


def at(params: Any, name: str) -> Any:
    for key in name.split("."):
        params = params[key]
    return params


def changed(name: str) -> dict[str, Any]:
    """The params, with another value of the one that is named."""
    params = copy.deepcopy(PARAMS)
    section, _, key = name.rpartition(".")
    at(params, section)[key] = other(at(params, name))
    return params


def other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case list():
            return [*value, other(value[-1])] if value else [1]
        case _:
            return 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline without code and data."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    shutil.copy(ROOT / ".dvcignore", folder)
    Repo.init(str(folder), no_scm=True).close()
    return folder


def stages_of(folder: Path, params: dict[str, Any]) -> dict[str, PipelineStage]:
    with (folder / "params.yaml").open("w") as file:
        SAFE.dump(params, file)
    with Repo(str(folder)) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
    for stage in stages.values():
        fill(stage, params)
    return stages


def fill(stage: PipelineStage, params: dict[str, Any]) -> None:
    for dep in stage.deps:
        if dep.hash_name == "params":
            dep.fill_values({name: at(params, name) for name in dep.params})
        else:
            dep.hash_info = ANY


def key(stage: PipelineStage) -> Any:
    """In the run cache, or what dvc.lock has of a stage that DVC keeps no run of."""
    entry = to_single_stage_lockfile(stage)
    return entry if any(out.persist for out in stage.outs) else _get_cache_hash(entry, key=True)


@pytest.fixture(scope="module")
def stages(folder: Path) -> dict[str, PipelineStage]:
    return stages_of(folder, PARAMS)


def test_dvc_leaves_out_size_and_nfiles_and_no_param_has_these_names() -> None:
    """When the first of these fails, docs/parameters.md has a paragraph too many."""
    entries = [{"cmd": "x", "params": {"params.yaml": {"data": {"size": size, "nfiles": size}}}} for size in (28, 14)]
    assert _get_cache_hash(entries[0]) == _get_cache_hash(entries[1])
    assert not {"size", "nfiles"} & {key for name in leaves(PARAMS) for key in name.split(".")}


def test_stages_without_a_key_are_those_that_keep_their_outputs(
    stages: dict[str, PipelineStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvc.output.Output.get_hash", lambda _: ANY)
    assert [name for name, stage in stages.items() if not _can_hash(stage)] == ["download@mnist"]


@pytest.mark.parametrize("name", [*leaves(PARAMS)])
def test_a_param_changes_the_key_of_each_stage_that_reads_it(name: str, stages: dict[str, PipelineStage]) -> None:
    for stage in stages.values():
        read = [param for dep in stage.deps if dep.hash_name == "params" for param in dep.params]
        if any(f"{name}.".startswith(f"{param}.") for param in read):
            before = key(stage)
            fill(stage, changed(name))
            after = key(stage)
            fill(stage, PARAMS)
            assert after != before == key(stage), stage.name


@pytest.mark.parametrize("name", sorted({*re.findall(r"\${(?!item\.)(\w+\.[\w.]+)}", DVC_YAML)}))
def test_a_param_that_dvc_yaml_names_changes_keys(name: str, folder: Path, stages: dict[str, PipelineStage]) -> None:
    before = {each: key(stage) for each, stage in stages.items()}
    assert {each: key(stage) for each, stage in stages_of(folder, changed(name)).items()} != before
