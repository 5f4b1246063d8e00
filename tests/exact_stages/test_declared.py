"""However a dvc.yaml writes a dep or a param, an edit of it during a run leaves no output and no saved state."""

import json
import re
from pathlib import Path

import pytest

from exact_stages import commands, declared
from exact_stages.code import hashes, lines_of
from exact_stages.console import UserError
from exact_stages.files import sha256
from exact_stages.stage import Stage, begun

CODE, DEEP, DATA, SPACE = "lib/m.py", "lib/sub/deep.py", "lib/data.json", "lib/ä b.py"
SCRIPT, OWN = "stages/fit.py", "code/fit.txt"
FILES = [CODE, DEEP, DATA, SPACE, "lib/.hidden", "configs/a.yaml", "large/a.bin", "large/m.py", SCRIPT]
LARGE = 50_000
PARAMS = {"code": "lib", "fit": {"lr": 1, "deep": {"lr": 1}}, "none": []}
OTHER = {"more": {"lr": 1}}
WAYS = {  # of the stage fit: what changes
    "deps: [./lib//]": DEEP,
    "deps: [HERE/lib/m.py]": CODE,
    "deps: [linked]": CODE.replace("lib", "linked"),
    "deps: [ lib ]  # data beside code": DATA,
    "deps: [ lib ]  # new": "lib/sub/new",
    "deps: [large/a.bin]": "large/a.bin",
    "deps: [large/]": "large/a.bin",
    "deps: [absent.bin]": "absent.bin",
    "wdir: '${code}', deps: [m.py]": CODE,
    "foreach: [m, n], do: {CMD, deps: ['lib/${item}.py']}": CODE,
    "matrix: {a: [lib], b: [m, n]}, deps: ['${item.a}/${item.b}.py']": CODE,
    "matrix: {it: '${none}'}, deps: [lib]": CODE,
    "params: [fit]": "fit.lr",
    "params: [{params.yaml: }]": "fit.deep.lr",
    "params: [{other.yaml: [more]}]": "other.yaml:more.lr",
    "wdir: configs, params: [{p.toml: [lr]}]": "configs/p.toml:lr",
}


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(declared, "SMALL", LARGE - 1)
    for name in FILES:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("1" * (LARGE if name == "large/a.bin" else name != SCRIPT))
    Path("linked").symlink_to("lib")
    Path("params.yaml").write_text(json.dumps(PARAMS))
    Path("other.yaml").write_text(json.dumps(OTHER))
    Path("configs/p.toml").write_text("lr = 1")


def written(stage: str) -> None:
    """Write the stage fit, which depends on its code besides."""
    at = "../" * ("wdir" in stage)
    stage = stage if "deps: [" in stage else f"deps: [], {stage}"
    stage = stage.replace("deps: [", f"deps: [{at}{OWN}, ").replace("CMD", f"cmd: python {SCRIPT}")
    Path("dvc.yaml").write_text(
        f"stages:\n  fit: {{{'' if 'do:' in stage else f'cmd: python {at}{SCRIPT}, '}{stage}\n  }}\n"
    )
    commands.write()
    begun.cache_clear()


def edit(name: str) -> None:
    """Change a file, or a value: fit.lr of params.yaml, other.yaml:more.lr."""
    file = name.rpartition(":")[0]
    path = Path("params.yaml" if name.startswith("fit.") else file or name)
    text = path.read_text() if path.exists() else ""
    path.write_text(re.sub(r"\b1\b", "2", text) if name != str(path) else "y" * len(text or "y"))


def run(item: str, name: str, of: str = "fit") -> None:
    """Run the stage, which writes a file and a folder, and change something meanwhile."""
    with Stage(of, item) as stage:
        stage.write(Path("out"), b"")
        stage.output(Path("folder")).mkdir(exist_ok=True)
        edit(name)


@pytest.mark.parametrize("way", WAYS)
def test_an_edit_of_what_is_declared_leaves_no_output_and_no_state(way: str, tmp_path: Path) -> None:
    name = WAYS[way]
    written(way.replace("HERE", str(tmp_path)))
    item = "m" if "foreach: [m, n]" in way else ""
    before = Stage("fit", item).fingerprint()
    with pytest.raises(UserError, match="changed while it ran: ") as raised:
        run(item, name)
    assert ("large" if name == "large/a.bin" else name) in str(raised.value)
    assert not Path("out").exists()
    assert not Path("folder").exists()
    begun.cache_clear()
    assert Stage("fit", item).fingerprint() != before


def test_an_item_is_not_concerned_by_the_deps_of_another() -> None:
    written("matrix: {it: [m, n]}, deps: ['lib/${item.it}.py']")
    run("n", CODE)
    assert Path("out").exists()
    begun.cache_clear()
    with pytest.raises(UserError, match=r": lib/n\.py"):
        run("another name", "lib/n.py")  # so all are its deps


def test_the_provenance_names_what_is_declared() -> None:
    for name, text in {"pyproject.toml": "[project]\ndependencies = []", "constraints.txt": ""}.items():
        Path(name).write_text(text)
    deps = "deps: [./lib/, '${item}', other.yaml], params: [fit.deep, {other.yaml: [more]}]"
    written(f"foreach: [configs/a.yaml], do: {{CMD, {deps}}}")
    stage = Stage("fit", "configs/a.yaml")
    stage.input(Path("other.yaml"))
    stage.write(Path("out"), b"")
    stage.record(Path("out"))
    made = json.loads(Path("out.provenance.json").read_text())
    assert made["code"] == hashes(lines_of(Path(OWN).read_text())) == {SCRIPT: sha256(Path(SCRIPT))}
    inputs = [CODE, SPACE, DEEP, DATA, "lib/.hidden", "configs/a.yaml", "other.yaml"]
    assert made["inputs"] == {name: sha256(Path(name)) for name in inputs}
    assert made["params"] == {"fit.deep.lr": 1, "other.yaml:more.lr": 1}


def run_of(stage: str, item: str) -> None:
    written(stage)
    with Stage("fit", item):
        pytest.fail("it ran")


@pytest.mark.parametrize(
    ("stage", "item", "named"),
    [
        ("deps: ['https://example.org/a']", "", "https://example.org/a"),
        ("deps: ['ds://images']", "", "ds://images"),
        ("depends: [lib]", "", "depends"),
        ("deps: [", "", "line 3"),
        ("matrix: {it: [m]}, vars: [absent.yaml]", "m", "absent.yaml"),
    ],
)
def test_what_cannot_be_resolved_is_refused_in_one_line_before_the_run(stage: str, item: str, named: str) -> None:
    with pytest.raises(UserError, match=r"^dvc\.yaml: ") as raised:
        run_of(stage, item)
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_stage_is_not_concerned_by_a_dep_of_another_that_is_not_here() -> None:
    written("deps: [lib]")
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text() + "  get: {cmd: x, deps: ['https://example.org/a']}\n")
    begun.cache_clear()
    with Stage("fit") as stage:
        stage.write(Path("out"), b"")
    assert Path("out").exists()


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("far: {wdir: .., cmd: python stages/fit.py, deps: [code/far.txt, lib/m.py]}", r"it ran: lib/m\.py; run it"),
        ("far: {wdir: .., cmd: python stages/fit.py}", r"^configs/dvc\.yaml: far: add code/far\.txt to its deps"),
        ("other: {wdir: .., cmd: 'true'}", r"^dvc\.yaml: no stage far; "),
        ("fit: {wdir: .., cmd: 'true'}", r"^configs/dvc\.yaml: dvc\.yaml: fit has this name; "),
    ],
)
def test_a_stage_of_another_dvc_yaml_is_hashed_and_refused_as_one_of_the_first(stage: str, said: str) -> None:
    written("deps: [lib]")
    Path("configs/dvc.yaml").write_text(f"stages: {{{stage}}}")
    commands.write() if "far" in stage else None
    begun.cache_clear()
    with pytest.raises(UserError, match=said) as raised:
        run("", CODE, "far")
    assert "\n" not in str(raised.value)
    assert not Path("out").exists()
