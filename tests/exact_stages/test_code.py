"""The code of a stage: what changes its hash and what does not, which files count, and what is refused."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from dvc.repo import Repo

from exact_stages import code as module
from exact_stages.code import code_of, lines_of, which_counts
from exact_stages.commands import why, write
from exact_stages.console import UserError
from exact_stages.declared import Declared
from exact_stages.source import parsed
from tests.with_dvc.dvc_clone import Clone

ROOT = Path(__file__).parents[2]
PYTHONS = [
    path
    for name in ("3.11", "3.12", "3.13", "3.14")
    for folder in (Path.home() / ".pyenv/versions", Path("/usr/bin"), Path("/usr/local/bin"))
    for path in (*folder.glob(f"{name}.*/bin/python{name}"), *folder.glob(f"python{name}"))
]
SAME = {
    "a comment": ("x = 1\ny = 2\n", "# one\nx = 1  # two\n  # three\ny = 2"),
    "blank lines and ends of lines": ("def f():\n    return 1\n", "\n\ndef f(): \t\n\n    return 1\r\n\n"),
    "docstrings": (
        'class A:\n    """A."""\n    def f(self):\n        "F."\n        return 1\n',
        '"""M."""\nclass A:\n    def f(self):\n        """F\n\n        # g"""\n        return 1\n',
    ),
    "a docstring of parts": (
        "def f():\n    return 1",
        'def f():\n    "a" \\\n    "b"; \n    return 1'.replace("; ", ""),
    ),
    "an asynchronous function's": ("async def f():\n    await g()", 'async def f():\n    "é"  # é\n    await g()'),
    "line ends in a string": ('x = """a\nb"""', 'x = """a\r\nb"""'),
}
OTHER = {
    "blank lines in a string": ('x = """a\n\nb"""', 'x = """a\nb"""'),
    "spaces at a line's end in a string": ('x = """a \nb"""', 'x = """a\nb"""'),
    "a comment sign in a string": ('x = "a # b"', 'x = "a # c"'),
    "a comment sign in an f-string": ('x = f"{1}#a"', 'x = f"{1}#b"'),
    "lines of an f-string of lines": ('x = f"""é\n\n{1}"""', 'x = f"""é\n{1}"""'),
    "a string below a field": ('class A:\n    x: int\n    "one"\n', 'class A:\n    x: int\n    "two"\n'),
    "a string that stands second": ('x = 1\n"a"', 'x = 1\n"b"'),
    "a text that is used": ('def f():\n    "a".lower()', 'def f():\n    "b".lower()'),
    "bytes that stand first": ('b"a"', 'b"b"'),
    "the coding": ("# coding: latin-1\nx = 1", "# coding: utf-8\nx = 1"),
    "an empty line that ends a statement": ("x = 1 \\\n\n-2", "x = 1 \\\n-2"),
    "indentation": ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
}


def digest(text: str) -> str:
    return parsed(text.encode()).plain


@pytest.mark.parametrize(("one", "two"), SAME.values(), ids=SAME)
def test_comments_docstrings_and_blank_lines_change_no_hash(one: str, two: str) -> None:
    assert digest(one) == digest(two)


@pytest.mark.parametrize(("one", "two"), OTHER.values(), ids=OTHER)
def test_all_else_changes_the_hash(one: str, two: str) -> None:
    assert digest(one) != digest(two)


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.name)
def test_every_python_gives_equal_hashes(python: Path) -> None:
    files = sorted(ROOT.glob("src/**/*.py")) + sorted(ROOT.glob("tests/**/*.py"))
    texts = [path.read_bytes() for path in files] + [text.encode() for pair in OTHER.values() for text in pair]
    run = "import sys; sys.path.insert(0, sys.argv[1]); import source; print([source.parsed(t).plain for t in TEXTS])"
    command = [python, "-c", f"TEXTS = eval(sys.stdin.read()) if (sys := __import__('sys')) else 0; {run}"]
    found = subprocess.run([*command, ROOT / "src/exact_stages"], input=repr(texts), capture_output=True, text=True)
    assert found.stdout == f"{[parsed(text).plain for text in texts]}\n", found.stderr


FILES = {
    "dvc.yaml": "stages:\n  it: {cmd: python it.py, deps: [code/it.txt]}\n",
    "it.py": "def late():\n    import pkg.one\n",
    "pkg/__init__.py": "first = 1\ndef __getattr__(name):\n    from pkg import lazy\n    return lazy.x\n",
    "pkg/one.py": "x = 1",
    "pkg/lazy.py": "from pkg import deep",
    "pkg/deep.py": "x = 1",
    "pkg/sub/__init__.py": "def __getattr__(name):\n    from steps import second\n    return second.x\n",
    "pkg/sub/deep/__init__.py": "x = 1",
    "src/pkg/other.py": "x = 1",
    "lib/helper.py": "x = 1",
    "steps/first.py": "import second",
    "steps/second.py": "x = 1",
}


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def files(script: str) -> set[str]:
    """The files that a script imports, without itself."""
    Path("it.py").write_text(script)
    return {*code_of(Declared(), "it").lines} - {"it.py"}


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("from pkg.one import x", "pkg/__init__.py pkg/one.py"),
        ("import pkg.one as one", "pkg/__init__.py pkg/one.py"),
        ("from pkg import one, first", "pkg/__init__.py pkg/one.py"),
        ("from pkg import y", "pkg/__init__.py pkg/lazy.py pkg/deep.py"),
        ("import pkg", "pkg/__init__.py pkg/lazy.py pkg/deep.py"),
        ("import pkg.one", "pkg/__init__.py pkg/one.py pkg/lazy.py pkg/deep.py"),
        (
            "from pkg import *",
            "pkg/__init__.py pkg/one.py pkg/lazy.py pkg/deep.py pkg/sub/__init__.py steps/second.py",
        ),
        ("from pkg import sub\nprint(sub.y)", "pkg/__init__.py pkg/sub/__init__.py steps/second.py"),
        ("from pkg.sub import *", "pkg/__init__.py pkg/sub/__init__.py pkg/sub/deep/__init__.py steps/second.py"),
        ("import pkg.other as other", "pkg/__init__.py src/pkg/other.py"),  # both folders have the package
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.one import x",
            "pkg/__init__.py pkg/one.py",
        ),
        ("import os; os.system('python steps/first.py')", "steps/first.py"),
        ("import subprocess as s; s.run(['python', '-m', 'pkg.one'])", "pkg/__init__.py pkg/one.py"),
        ("import os; os.system('python -m pkg.deep')", "pkg/__init__.py pkg/deep.py"),
        ("try:\n    import not_here\nexcept ImportError:\n    import pkg.deep as d", "pkg/__init__.py pkg/deep.py"),
    ],
)
def test_the_files_that_count(script: str, found: str) -> None:
    assert files(script) == {*found.split()}


def test_a_module_that_only_this_pythons_path_finds_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert code_of(Declared(), "it").faults == []
    assert files("import helper") == set()
    assert code_of(Declared(), "it").faults == ["it.py: line 1: no module helper, here or installed"]
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    assert files("import helper") == {"lib/helper.py"}


def test_docstrings_count_in_all_files_if_one_reads_them() -> None:
    plain = code_of(Declared(), "it").lines["pkg/one.py"]
    Path("pkg/one.py").write_text('"""One."""\nx = 1')
    Path("it.py").write_text("import pkg.one as one\nname = '__doc__'")
    assert code_of(Declared(), "it").lines["pkg/one.py"] == plain
    Path("it.py").write_text("import pkg.one as one\nprint(one.__doc__)")
    assert code_of(Declared(), "it").lines["pkg/one.py"] != plain


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("\nimportlib.import_module('pkg')", "it.py: line 2: import_module may run code that no import shows"),
        ("exec(text)", "it.py: line 1: exec may run code"),
        ("load = importlib.import_module", "it.py: line 1: import_module may run code"),
        ("from runpy import run_path as run", "it.py: line 1: run_path may run code"),
        ("import no_such_module", "it.py: line 1: no module no_such_module"),
        ("x = (", "it.py: not valid Python: line 1: "),
    ],
)
def test_code_that_no_import_shows_is_refused_and_nothing_is_written(script: str, said: str) -> None:
    Path("it.py").write_text(script)
    with pytest.raises(UserError, match=said):
        write()
    assert not Path("code").exists()


def test_a_python_dep_is_what_such_code_may_run_and_a_cursor_may_execute() -> None:
    Path("it.py").write_text("__import__(name)\nquery.exec(text)")
    Path("dvc.yaml").write_text(FILES["dvc.yaml"].replace("it.txt]", "it.txt, lib]"))
    write()
    assert [*lines_of(Path("code/it.txt").read_text())] == ["it.py"]


def test_files_follow_the_stages_items_and_commands() -> None:
    stages = {
        "each": "{matrix: {by: [one, deep]}, cmd: 'python pkg/${item.by}.py'}",
        "none": "{foreach: [], do: {cmd: 'python pkg/one.py ${item}'}}",
        "launched": "{wdir: lib, cmd: [python ../it.py python helper.py]}",
        "shell": "{cmd: cp a b}",
        "hidden": "{cmd: [python it.py, torchrun -m it]}",
        "code": "{cmd: python -m exact_stages code, outs: [code: {cache: false}]}",
    }
    Path("dvc.yaml").write_text("stages:\n" + "".join(f"  {name}: {text}\n" for name, text in stages.items()))
    Path("code").mkdir()
    Path("code/gone.txt").write_text(f"{digest('')}  gone.py\n")
    Path("code/notes.txt").write_text("numpy==1.0\n")  # of the user
    write()
    found = {path.stem: [*lines_of(path.read_text())] for path in Path("code").iterdir()}
    assert found.pop("notes") == ["numpy"]
    assert found == {
        "each": ["pkg/deep.py", "pkg/one.py"],
        "none": ["pkg/one.py"],
        "launched": ["it.py", "lib/helper.py", "pkg/__init__.py", "pkg/deep.py", "pkg/lazy.py", "pkg/one.py"],
    }


def test_locked_packages_count_with_what_they_require_on_all_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = {
        "one": ["two[more]", "old; python_version < '3.12'", "mac; sys_platform == 'darwin'", "unlocked", "plain"],
        "two": ["three; extra == 'more'", "four; extra == 'other'", "one"],
        "unlocked": ["five"],
    }

    def distribution(name: str) -> SimpleNamespace:
        if name in ("plain", "three"):
            raise PackageNotFoundError
        return SimpleNamespace(requires=requires[name])

    names = ["one", "two", "three", "four", "five", "old", "mac", "plain"]
    Path("constraints.txt").write_text("# locked\n" + "".join(f"{name.title()}==1.{len(name)}\n" for name in names))
    monkeypatch.setattr(module, "distribution", distribution)
    monkeypatch.setattr(module, "_distributions", lambda: {"one": ["One"], "json": ["five"]})
    module._required.cache_clear()
    Path("it.py").write_text("from one.sub import x")
    assert code_of(Declared(), "it").text.split("\n")[1:-1] == ["one==1.3", "plain==1.5", "three==1.5", "two==1.3"]
    module._required.cache_clear()


def test_the_check_names_the_file_that_changed_and_writes_nothing() -> None:
    write()
    write(check=True)
    before = Path("code/it.txt").read_text()
    Path("pkg/one.py").write_text("x = 2")
    with pytest.raises(UserError, match=r"run `dvc repro code`\n  code/it.txt: pkg/one.py changed$"):
        write(check=True)
    assert Path("code/it.txt").read_text() == before


def test_the_kit_alone_is_in_no_line_of_packages_and_no_command_in_a_closure() -> None:
    found = lines_of((ROOT / "examples/wine/code/fit.txt").read_text())
    own = {name.removeprefix("exact_stages/") for name in found if name.startswith("exact_stages/")}
    commands = {"__main__.py", "commands.py", "trace.py", "twice.py"}
    assert own == {path.name for path in (ROOT / "src/exact_stages").glob("*.py")} - commands
    assert all(name.endswith(".py") for name in found)


def test_why_names_the_change_and_the_way_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = {
        "code": "{cmd: PYTHONPATH=KIT python -m exact_stages code, always_changed: true, outs: [code: OUT]}",
        "fit": "{cmd: 'python it.py && cp data out', deps: [code/fit.txt, data], params: [lr], outs: [out]}",
        "score": "{cmd: python steps/first.py, deps: [code/score.txt, out], outs: [{score: {cache: false}}]}",
    }
    text = "".join(f"  {name}: {each}\n" for name, each in stages.items()).replace("KIT", str(ROOT / "src"))
    Path("dvc.yaml").write_text(f"stages:\n{text}".replace("OUT", "{cache: false, persist: true}"))
    Path("steps/first.py").write_text("open('score', 'w')")
    Path("params.yaml").write_text("lr: 1")
    Path("data").write_text("1")
    clone = Clone(tmp_path)
    clone.git("init", "--quiet")
    Repo.init().close()

    def told() -> list[str]:
        capsys.readouterr()
        why()
        return capsys.readouterr().out.splitlines()

    assert told() == ["fit: dvc.lock has no run of it", "score: dvc.lock has no run of it"]
    clone.dvc("repro")
    clone.git("add", "--all")
    clone.git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--message", "one")
    assert told() == ["all: up to date"]
    Path("pkg/one.py").write_text("x = 2  # two")
    Path("params.yaml").write_text("lr: 2")
    write()  # as a hook of git does
    assert told() == [
        "fit: lr: modified",
        "fit: pkg/one.py changed; it.py imports it",
        "score: after fit, if outputs of that change",
    ]
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(re.sub(r"(code/fit.txt\n *hash: md5\n *md5: )\w+", rf"\g<1>{'a' * 32}", lock))
    assert told()[1] == "fit: code/fit.txt: not the text that dvc.lock records, which no commit has"


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("cd steps && python first.py", "steps/first.py steps/second.py"),
        ("cd $A && python it.py", "cannot follow"),
        ("python it.py --then=steps/second.py > steps/first.py 2>&1", "it.py steps/second.py"),
        ("python it.py -m steps.second", "it.py steps/second.py"),
        ('python it.py "$(python steps/second.py)"', "it.py steps/second.py"),
        ("exec env -u B A=$PPID python3 -u -W error -m steps.second a &> log", "steps/second.py"),
        ("A='b c' sh -c 'exec ${LAUNCH:-python} -m steps.second'; python it.py  # it's", "it.py steps/second.py"),
        ("(uv run .venv/bin/python3.11 it.py python -m steps.second) 2>&1", "it.py steps/second.py"),
        ("PYTHONPATH=$PWD/lib:. python -m helper", "lib/helper.py"),
        ("PYTHONPATH=$A python it.py", "cannot follow"),
        ("python no.py", "cannot follow"),
        ("for a in b; do PYTHONPATH=lib nice -n 5 python -OO -Werror steps/second.py; done", "steps/second.py"),
    ],
)
def test_the_files_that_a_command_starts(command: str, found: str) -> None:
    Path("it.py").write_text("x = 1")
    Path("dvc.yaml").write_text("stages:\n  it:\n    cmd: |\n      " + command.replace("${", r"\${"))
    code = code_of(Declared(), "it")
    assert " ".join([each[:13] for each in code.faults] or [*sorted(code.lines)]) == found


def test_another_pythons_imports_may_be_absent_and_a_stages_own_output_is_no_code() -> None:
    Path("it.py").write_text(
        "if sys.version_info < (3, 11) or os.name == 'nt':\n    import none_here\n"
        "try:\n    import not_here\nexcept ImportError:\n    import nor_here\nopen('lib/helper.py', 'w')"
    )
    Path("dvc.yaml").write_text(FILES["dvc.yaml"].replace("it.txt]", "it.txt], outs: [lib]"))
    assert (code_of(Declared(), "it").faults, [*code_of(Declared(), "it").lines]) == ([], ["it.py"])


def test_each_line_of_a_locked_package_counts_without_its_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("constraints.txt").write_text("a-b==1; python_version < '3.12'  # c\nA_b==2\nc @ git+https://e.org@d\n")
    monkeypatch.setattr(module, "_required", lambda *_: [])
    assert module._locked([("a-b", frozenset()), ("c", frozenset())]) == {
        "a-b": "1; python_version < '3.12' 2",
        "c": "git+https://e.org@d",
    }


def test_a_file_that_a_merge_left_in_disorder_is_written_again() -> None:
    write()
    path = Path("code/it.txt")
    right = path.read_text()
    path.write_text(f"<<<<<<< HEAD\n{right}=======\n{right}>>>>>>> other\n")
    with pytest.raises(UserError, match=r"code/it\.txt: the text changed"):
        write(check=True)
    write()
    assert path.read_text() == right


def test_the_kit_counts_by_its_version_where_it_is_installed_and_by_its_files_where_it_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kit = SimpleNamespace(version="7", locate_file=lambda name: Path("site", name))
    monkeypatch.setattr(module, "_installed", lambda name: kit if name == "exact-stages" else None)
    for folder in ("site/exact_stages", "build/lib/exact_stages", "exact_stages.egg-info"):
        Path(folder).mkdir(parents=True)
    Path("build/lib/exact_stages/__init__.py").touch()
    Path("it.py").write_text("import exact_stages")
    installed = code_of(Declared(), "it")
    assert [*installed.lines] == ["exact-stages", "it.py"]
    assert installed.text.endswith("\nexact-stages==7\n")
    Path("exact_stages").mkdir()
    Path("exact_stages/__init__.py").touch()
    copied = code_of(Declared(), "it")
    assert {*copied.lines} == {"exact_stages/__init__.py", "it.py"}
    told = "the files in exact_stages count, and not exact-stages 7, which is installed"
    assert [which_counts([each]) for each in (installed, copied)] == ["", told]


def test_other_tools_follow_imports_without_dvc() -> None:
    absent = "import sys; sys.modules |= dict.fromkeys(('dvc', 'packaging', 'pydantic', 'ruamel', 'tqdm'))"
    run = "from exact_stages import follow; print(sorted(follow(['it.py'], ['.']).files))"
    ran = subprocess.run(
        [sys.executable, "-c", f"{absent}; {run}"], env={"PYTHONPATH": f"{ROOT}/src"}, capture_output=True, text=True
    )
    found = [
        f"{Path.cwd()}/{name}" for name in ("it.py", "pkg/__init__.py", "pkg/deep.py", "pkg/lazy.py", "pkg/one.py")
    ]
    assert ran.stdout == f"{found}\n", ran.stderr
