"""The import closure of a module, on a small tree of files."""

from pathlib import Path

import pytest

from scripts.closure import closure, module_file

FILES = {
    "stages/__init__.py": "import sys",
    "stages/first.py": "import json, torch.nn\nfrom ddpm.one import thing\ndef main():\n    import ddpm.late",
    "stages/second.py": "from ddpm import one as renamed",
    "stages/third.py": "from ddpm.deep.inner import thing",
    "src/ddpm/__init__.py": "",
    "src/ddpm/one.py": "from ddpm.two import a, b\nfrom ddpm.one import thing",
    "src/ddpm/two.py": "if True:\n    from ddpm.one import thing",
    "src/ddpm/late.py": "text = 'import ddpm.unused'",
    "src/ddpm/unused.py": "import ddpm.two",
    "src/ddpm/deep/__init__.py": "import ddpm.late",
    "src/ddpm/deep/inner.py": "x = 1",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "files"),
    [
        ("stages.first", "src/ddpm/late.py src/ddpm/one.py src/ddpm/two.py stages/__init__.py stages/first.py"),
        ("stages.second", "src/ddpm/one.py src/ddpm/two.py stages/__init__.py stages/second.py"),
        (
            "stages.third",
            "src/ddpm/deep/__init__.py src/ddpm/deep/inner.py src/ddpm/late.py stages/__init__.py stages/third.py",
        ),
        ("ddpm.unused", "src/ddpm/one.py src/ddpm/two.py src/ddpm/unused.py"),
        ("stages.absent", "stages/__init__.py"),
    ],
)
def test_closure_of_a_small_tree(tree: Path, module: str, files: str) -> None:
    assert closure(module, tree) == files.split()


def test_module_file_knows_the_project_s_own_modules_only(tree: Path) -> None:
    assert module_file("ddpm.one", tree) == tree / "src/ddpm/one.py"
    assert module_file("ddpm.deep", tree) == tree / "src/ddpm/deep/__init__.py"
    assert module_file("stages", tree) == tree / "stages/__init__.py"
    assert module_file("torch", tree) is None
    assert module_file("ddpm.one.thing", tree) is None
