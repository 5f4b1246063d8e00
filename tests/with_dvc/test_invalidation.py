"""Leftovers rerun nothing.

That each stage declares what it reads is the subject of tests/test_dvc_yaml.py; that an edit reruns the stages which
declare its file, and none behind, that of tests/exact_stages/test_example.py.
"""

import pytest

from tests.with_dvc.dvc_clone import Clone

pytestmark = pytest.mark.pipeline


def test_what_python_editors_and_systems_leave_reaches_no_stage(clone: Clone) -> None:
    packages = [path.parent for path in clone.path.glob("src/ddpm/*/__init__.py")]
    assert packages
    for folder in [*packages, clone.path / "src/exact_stages", clone.path / "stages"]:
        (folder / "__pycache__").mkdir(exist_ok=True)
        for name in ("__pycache__/x.pyc", ".DS_Store", "Thumbs.db", ".a.py.swp", "a.py~", "#a.py#"):
            (folder / name).touch()
        (folder / ".#a.py").symlink_to("user@machine.123")  # as Emacs leaves it
    assert clone.dvc("status").strip() == "Data and pipelines are up to date."
