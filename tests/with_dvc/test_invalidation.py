"""An edit reruns the stages that declare its file, what comes out equal stops the chain, and leftovers rerun nothing.

That each stage declares what it reads is the subject of tests/test_dvc_yaml.py.
"""

import pytest

from tests.with_dvc.dvc_clone import Clone, ran, restored

pytestmark = pytest.mark.pipeline


@pytest.mark.long
def test_a_comment_reruns_the_stages_of_the_file_and_none_behind(clone: Clone) -> None:
    clone.append("src/ddpm/unet.py", "# a comment, which changes no output")
    output = clone.dvc("repro")
    reran = {"train", "sample@gallery", "sample@population", "likelihood"}
    assert (ran(output), restored(output)) == (reran, set()), output


def test_what_python_editors_and_systems_leave_reaches_no_stage(clone: Clone) -> None:
    packages = [path.parent for path in clone.path.glob("src/ddpm/*/__init__.py")]
    assert packages
    for folder in [*packages, clone.path / "src/exact_stages", clone.path / "stages"]:
        (folder / "__pycache__").mkdir(exist_ok=True)
        for name in ("__pycache__/x.pyc", ".DS_Store", "Thumbs.db", ".a.py.swp", "a.py~", "#a.py#"):
            (folder / name).touch()
        (folder / ".#a.py").symlink_to("user@machine.123")  # as Emacs leaves it
    assert clone.dvc("status").strip() == "Data and pipelines are up to date."
