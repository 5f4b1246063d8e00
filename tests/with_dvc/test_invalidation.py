"""An edit reruns the stages that declare its file, and changes their provenance; leftovers rerun nothing.

That each stage declares what it reads is the subject of tests/test_dvc_yaml.py.
"""

import pytest

from tests.with_dvc.dvc_clone import Clone, ran, read_json, restored

pytestmark = pytest.mark.pipeline


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "others"),
    [("src/ddpm/unet.py", {"sample@gallery", "sample@population", "likelihood"}), ("src/ddpm/train.py", set())],
)
def test_a_comment_reruns_the_stages_of_the_file_and_none_behind(file: str, others: set[str], clone: Clone) -> None:
    model, record = clone.path / "models/ddpm.safetensors", clone.path / "models/ddpm.provenance.json"
    weights, code = model.read_bytes(), read_json(record)["code"]
    clone.append(file, "# a comment, which changes no output but the provenance")
    output = clone.dvc("repro")
    assert (ran(output), restored(output)) == ({"train", *others}, set()), output
    now = read_json(record)["code"]
    assert model.read_bytes() == weights
    assert [name for name in now if now[name] != code[name]] == [file]


def test_what_python_editors_and_systems_leave_reaches_no_stage(clone: Clone) -> None:
    packages = [path.parent for path in clone.path.glob("src/ddpm/*/__init__.py")]
    assert packages
    for folder in [*packages, clone.path / "src/exact_stages", clone.path / "stages"]:
        (folder / "__pycache__").mkdir(exist_ok=True)
        for name in ("__pycache__/x.pyc", ".DS_Store", "Thumbs.db", ".a.py.swp", "a.py~", "#a.py#"):
            (folder / name).touch()
        (folder / ".#a.py").symlink_to("user@machine.123")  # as Emacs leaves it
    assert clone.dvc("status").strip() == "Data and pipelines are up to date."
