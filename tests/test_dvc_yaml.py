import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from scripts.closure import closure, imported_modules, module_file

ROOT = Path(__file__).parents[1]
PIPELINE: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")
PARAMS: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")
# There are no such stages by default.
PARAMS["distill"]["steps"] = ["4"]
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]
SOURCES = sorted([*ROOT.glob("src/ddpm/**/*.py"), *ROOT.glob("stages/*.py"), *ROOT.glob("scripts/**/*.py")])
# The rooms of the library, in the order in which imports may run: a room imports from itself and from those before it.
ROOMS = ["runtime", "data", "diffusion", "networks", "training", "scoring", "balancing"]
ALLOWED = {name: {*ROOMS[:place]} for place, name in enumerate(ROOMS)}
ALLOWED["scoring"] -= {"training"}
ALLOWED |= {"ddpm": {*ROOMS}, "stages": {"ddpm", *ROOMS}, "scripts": {"stages", "ddpm", *ROOMS}}
every_stage = pytest.mark.parametrize("name", STAGES)


def expanded(name: str, entries: list[Any]) -> list[Any]:
    """The entries for every item of the stage's matrix, with the values of the params that they name."""
    variable, items = item(name), next(iter(STAGES[name].get("matrix", {"": [""]}).values()))
    if isinstance(items, str):
        items = resolved(items)
    texts = [resolved(entry if isinstance(entry, str) else next(iter(entry))) for entry in entries]
    return [text.replace(variable, each) for text in texts for each in (items if variable in text else items[:1])]


def resolved(text: str) -> Any:
    """A template's value, or the text with the values of its templates."""
    for template in re.findall(r"\$\{(?!item)([\w.]+)\}", text):
        value: Any = PARAMS
        for key in template.split("."):
            value = value[key]
        if text == f"${{{template}}}":
            return value
        text = text.replace(f"${{{template}}}", value)
    return text


def item(name: str) -> str:
    """The only variable of the stage's matrix, as it is written; what no text contains where there is none."""
    keys = [*STAGES[name].get("matrix", {"none": []})]
    assert len(keys) == 1
    return f"${{item.{keys[0]}}}"


def outputs(name: str) -> dict[str, bool]:
    """Whether DVC caches it, for every output of the stage."""
    cached = {}
    for kind in ("outs", "metrics", "plots"):
        for entry in STAGES[name].get(kind, []):
            options = {} if isinstance(entry, str) else next(iter(entry.values()))
            cached |= dict.fromkeys(expanded(name, [entry]), options.get("cache", True))
    return cached


ALL_OUTPUTS = {path: cached for name in STAGES for path, cached in outputs(name).items()}


def script(name: str) -> ast.Module:
    return ast.parse((ROOT / "stages" / f"{name}.py").read_text())


def calls(tree: ast.AST, function: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            yield node


def method_calls(tree: ast.AST, thing: str, method: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id), attr=attribute)) if (id, attribute) == (thing, method):
                yield node


def fields(tree: ast.AST, class_name: str) -> list[str]:
    """The fields of a pydantic model, from its source: that of the tree, or of the module that has the class."""
    trees = [tree, *(ast.parse(path.read_text()) for path in SOURCES)]
    nodes = (node for each in trees for node in ast.walk(each))
    body = next(node for node in nodes if isinstance(node, ast.ClassDef) and node.name == class_name).body
    return [node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]


def loaded_sections(tree: ast.Module) -> set[str]:
    """What the script's calls of stage.params read: the fields of `Params`, or the section that an f-string names."""
    sections: set[str] = set()
    for call in method_calls(tree, "stage", "params"):
        match call.args:
            case [ast.Name("Params")]:
                sections |= set(fields(tree, "Params"))
            case [ast.Name(name), ast.Constant(value=str(section))]:
                sections |= {f"{section}.{field}" for field in fields(tree, name)}
            case [ast.Name(), ast.JoinedStr(values=[ast.Constant(value=str(section)), ast.FormattedValue()])]:
                sections.add(f"{section}${{item.set}}")
            case _:
                pytest.fail(f"stage.params is called in a way that this test cannot read: {ast.unparse(call)}")
    return sections


@every_stage
def test_code_deps_are_the_import_closure(name: str) -> None:
    code = [dep for dep in STAGES[name]["deps"] if dep.endswith(".py")]
    assert sorted(code) == closure(f"stages.{name}", ROOT)


@every_stage
def test_params_are_the_sections_that_the_script_loads(name: str) -> None:
    declared = STAGES[name].get("params", [])
    assert len(set(declared)) == len(declared)
    assert set(declared) == loaded_sections(script(name))


def test_the_sections_read_are_those_expected() -> None:
    # Pinned, so that the reader above cannot agree with dvc.yaml by finding nothing.
    read = {name: loaded_sections(script(name)) for name in STAGES}
    assert read == {
        "download": set(),
        "preprocess": {"data"},
        "forward_diffusion": {"forward_diffusion", "schedule"},
        "classifier": {"classifier"},
        "train": {"model", "schedule", "train"},
        "distill": {"distill"},
        "sample": {"sample.${item.set}", "sample.model"},
        "filter": {"filter"},
        "evaluate": {"evaluate"},
        "likelihood": {"likelihood"},
        "classification_accuracy_score": {"classification_accuracy_score"},
    }


def test_params_yaml_holds_the_declared_sections_and_no_others() -> None:
    declared = {section for name in STAGES for section in expanded(name, STAGES[name].get("params", []))}
    split = {section.partition(".")[0] for section in declared if "." in section}  # stages read parts of these
    whole = {section for section in PARAMS if section not in split}
    parts = {f"{section}.{name}" for section in split for name in PARAMS[section]}
    items = {"download"}  # of matrices alone
    assert declared | items == whole | parts
    assert not declared & items


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_stages_read_params_so_that_an_edit_is_noticed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if path.name not in ("params.py", "provenance.py"):
        assert bool(list(calls(tree, "load_params"))) == (path.name == "check_params.py")
        if path.name not in ("check_params.py", "stage.py"):  # which read a record and dvc.yaml
            assert not list(calls(tree, "read_yaml"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_import_is_one_that_the_closure_sees(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"__import__", "exec", "eval"}, "an import built from a string"
    if path.name != "process.py":  # which loads files as they are, and names none
        assert not {name.partition(".")[0] for name in imported_modules(path)} & {"importlib", "runpy", "pkgutil"}
    relative = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative, "closure() reads absolute imports only"


def test_no_package_has_a_face() -> None:
    inits = sorted(str(path.relative_to(ROOT)) for path in SOURCES if path.name == "__init__.py")
    packages = [f"src/ddpm/{room}/__init__.py" for room in ROOMS]
    assert inits == sorted(
        [
            "scripts/__init__.py",
            "scripts/reporting/__init__.py",
            "src/ddpm/__init__.py",
            *packages,
            "stages/__init__.py",
        ]
    )
    for name in inits[1:-1]:
        assert (ROOT / name).read_text() == "", name
    first, second, *_ = ast.parse((ROOT / "stages/__init__.py").read_text()).body
    assert ast.unparse(first) == "import sys"
    assert ast.unparse(second) == "sys.path.insert(0, f'{__path__[0]}/../src')"


def test_what_runs_before_a_stage_s_imports_is_the_standard_library() -> None:
    before = {path for path in closure("stages", ROOT) if path != "stages/__init__.py"}
    assert before == {"src/ddpm/pipeline/process.py"}
    imported = {name.partition(".")[0] for name in imported_modules(ROOT / "src/ddpm/pipeline/process.py")}
    assert imported <= sys.stdlib_module_names


def room(module: str) -> str:
    """Where a module of the project is: in a sub-package of the library, `ddpm` itself, or another folder."""
    first, _, rest = module.partition(".")
    inner = rest.partition(".")[0]
    return inner if first == "ddpm" and inner in ROOMS else first


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT / "src" if "src" in path.parts else ROOT).with_suffix("").parts)
    reached = {
        room(name)
        for name in imported_modules(path)
        if (file := module_file(name, ROOT)) and file.stat().st_size  # an empty __init__.py is nowhere
    }
    assert reached <= {room(module)} | ALLOWED[room(module)]


def test_what_trains_knows_no_sampler_and_what_trains_or_draws_no_score() -> None:
    training = closure("stages.train", ROOT)
    drawing = closure("stages.sample", ROOT)
    assert "src/ddpm/sampling/samplers.py" in drawing
    assert "src/ddpm/sampling/samplers.py" not in training
    assert not [path for path in (*training, *drawing) if path.startswith("src/ddpm/scoring/")]


def test_stages_are_the_scripts() -> None:
    assert set(STAGES) == {path.stem for path in ROOT.glob("stages/*.py")} - {"__init__"}


@every_stage
def test_command_runs_the_script_of_the_same_name(name: str) -> None:
    argument = f" {item(name)}" if "matrix" in STAGES[name] else ' "${data.set}"' if name == "preprocess" else ""
    assert STAGES[name]["cmd"] == f"${{run}} stages.{name}{argument}"
    assert PIPELINE["vars"] == [{"run": "exec env DDPM_PARENT=$PPID PYTHONSAFEPATH= python -m"}]


@every_stage
def test_a_stage_s_own_section_has_its_name(name: str) -> None:
    sections = {section.partition(".")[0] for section in STAGES[name].get("params", [])}
    shared = {"schedule", "model", "data"}
    assert sections - shared <= {name}


@every_stage
def test_text_and_pictures_lie_in_the_stage_s_metrics_folder(name: str) -> None:
    for path in outputs(name):
        assert path.startswith((f"metrics/{name}/", "data/", "models/")), path


@every_stage
def test_data_deps_are_outputs_of_earlier_stages(name: str) -> None:
    order = list(STAGES)
    earlier = {path for other in order[: order.index(name)] for path in outputs(other)}
    data = {dep for dep in expanded(name, STAGES[name]["deps"]) if not dep.endswith(".py")}
    assert data <= earlier
    assert bool(data) == (name != "download")


def test_no_output_belongs_to_two_stages() -> None:
    assert len(ALL_OUTPUTS) == sum(len(outputs(name)) for name in STAGES)


@pytest.mark.parametrize("path", ALL_OUTPUTS)
def test_git_keeps_what_dvc_does_not_cache(path: str) -> None:
    cached = ALL_OUTPUTS[path]
    assert cached != path.startswith("metrics/")
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=ROOT).returncode == 0
    assert ignored == cached


@every_stage
def test_uncached_outputs_are_metrics_or_plots(name: str) -> None:
    # DVC keeps a stage out of the run cache when another kind of output has `cache: false` (dvc.stage.Stage.run): the
    # stage then runs again on the way back to params that it has seen. So does `persist: true`, which keeps DVC from
    # deleting the files of who gave the pipeline its own folder as DDPM_DATA_DIR; only download, which looks at what
    # is there, may have it.
    options = [next(iter(entry.values())) for entry in STAGES[name].get("outs", []) if not isinstance(entry, str)]
    assert options == ([{"persist": True}] if name == "download" else [])


def plot_sources(plot: Any) -> set[str]:
    """The files that an entry of the top-level plots names."""
    if isinstance(plot, str):
        return {plot}
    (properties,) = plot.values()
    assert isinstance(properties["x"], str), "DVC drops a plot that has a dictionary for x and several columns for y"
    return set(properties["y"])


@pytest.mark.parametrize(
    "plot", PIPELINE["plots"], ids=lambda plot: plot if isinstance(plot, str) else next(iter(plot))
)
def test_plots_name_outputs(plot: Any) -> None:
    assert plot_sources(plot) <= ALL_OUTPUTS.keys()


def test_artifacts_are_cached_outputs() -> None:
    assert {ALL_OUTPUTS[artifact["path"]] for artifact in PIPELINE["artifacts"].values()} == {True}
