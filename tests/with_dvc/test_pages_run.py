"""The blocks of commands on pages, run as they are typed, in the order of the page, in a clone with tiny params."""

import re
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from tests.cli.generating import tiny_model
from tests.with_dvc.dvc_clone import ROOT, Clone

BEFORE = {  # what a page takes as given, beside a trained model and images of two classes in data/mine
    "../README": "",
    "tutorial/first-run": "git reset --quiet HEAD^",  # the results of the run are not committed
    "how-to/sample": "mv ../tiny.safetensors models/ddpm.safetensors",  # knows more classes than one
    "how-to/compare": "git checkout --quiet . && dvc exp remove slower",  # its results are in the run cache
    "how-to/own-images": "",
    "how-to/rare-class": "mv data/mine data/digits",
    "how-to/few-steps": "",
    "how-to/share": "",
    "how-to/own-pipeline": "",
    "how-to/fix-it": """tar -cf data/mine.tar -C data/mine . && rm -r data/mine
conflict() {
    sed -i '$ s/$/  # ours/' dvc.lock && git commit --quiet --all --message ours && git checkout --quiet -b other HEAD^
    sed -i 's/md5: .*/md5: 0/' dvc.lock && git commit --quiet --all --message theirs
    git checkout --quiet main && ! git merge --quiet other
}""",
}
CLONE, FOLDER = "it is there", "no such folder"
TRAIN, MORE = "seconds instead of minutes", "the stages behind it are run by other tests"
INSTEAD = (  # page, part of a line, what runs instead of it, why
    ("../README", "git clone URL ddpm && cd ddpm", "", CLONE),
    ("../README", "make test", ":", "this is one of its tests"),
    ("../README", "scored.steps=12", "scored.steps=12 sample@scored", MORE),
    ("tutorial/first-run", "git clone URL ddpm && cd ddpm", ":", CLONE),
    ("how-to/compare", "model.attention=true", "model.attention=true preprocess", MORE),
    ("how-to/compare", "dvc queue start", ":", "DVC's own work, which takes minutes"),
    ("how-to/own-images", "data.set=data/mine", "data.set=data/mine preprocess", MORE),
    ("how-to/own-images", "URL", '"$NEAR/origin"', CLONE),
    ("how-to/own-images", "# copy your images", "cp -r ../data/mine data/mine #", "by hand"),
    ("how-to/own-images", "# in params.yaml", "sed -i 's/mnist/mine/' params.yaml #", "by hand"),
    ("how-to/own-images", "make repro", "dvc repro preprocess", MORE),
    ("how-to/rare-class", "data.test=0.2", "data.test=0.2 -S train.classes=all train classifier", MORE),
    ("how-to/rare-class", "set=data/balanced", "set=data/balanced preprocess", MORE),
    ("how-to/few-steps", "'distill.steps=[4]'", "'distill.steps=[4]' -S distill.images_seen=500", TRAIN),
    ("how-to/few-steps", "scored.steps=null", "scored.steps=null -S sample.preview.steps=null sample", MORE),
    ("how-to/share", "'/mnt/share/ddpm'", '"$NEAR/remote"', FOLDER),
    ("how-to/share", "git clone URL", 'git clone "$NEAR/origin"', FOLDER),
    ("how-to/share", "https://example.com/ddpm.git", '"file://$NEAR/origin"', "no such server"),
    ("how-to/share", "dvc artifacts get", "rm ddpm.safetensors && dvc artifacts get", "the file is there"),
    ("how-to/own-pipeline", "python3 -m venv .venv && ", "", "the environment is that of the tests"),
    ("how-to/own-pipeline", "pip install", ": pip install", "the same"),
    ("how-to/fix-it", "git checkout --ours", "conflict && git checkout --ours", "there is none"),
    ("how-to/fix-it", "dvc repro", "dvc repro train", MORE),
    ("how-to/fix-it", "data.set=data/mine", "data.set=data/mine preprocess", MORE),
)
START = """
NEAR=$(dirname "$PWD")
git clone --quiet --bare . "$NEAR/origin"
git remote add origin "$NEAR/origin" && git fetch --quiet && git branch --quiet --set-upstream-to origin/main
source() { [ "$*" = .venv/bin/activate ]; }  # the environment is that of the tests
make() { command make --old-file .venv/.running --old-file .venv/.with-pages "$@"; }
"""
PEOPLE = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def script(page: str) -> str:
    """The commands of a page in bash. It ends where one of them fails, and shows which."""
    commands: list[str] = []
    for block in MarkdownIt("commonmark").parse((ROOT / f"docs/{page}.md").read_text()):
        text = re.sub(r"\\\n\s*", "", block.content)
        if block.type == "fence" and block.info in ("bash", "console"):
            commands += text.splitlines() if block.info == "bash" else re.findall(r"^\$ (.*)", text, re.MULTILINE)
        elif block.type == "fence" and block.info == "python" and page == "how-to/sample":
            commands.append(f"python - <<'END'\n{text}END")
        elif block.type == "fence" and block.info == "python" and page == "how-to/own-pipeline":
            commands.append(f"cat > {text.split()[1]} <<'END'\n{text}END")  # its first line names the file
    for where, typed, instead, _ in INSTEAD:
        if where == page:
            assert any(typed in each for each in commands), f"{page}.md no longer has {typed}"
            commands = [each.replace(typed, instead) for each in commands]
    kept = [each for each in commands if each and not each.startswith("#")]
    return "\n".join([BEFORE[page], START, "set -x", *(f"{{ {each}\n}} || exit 1" for each in kept)])


@pytest.mark.long
@pytest.mark.parametrize("page", BEFORE)
def test_a_page_runs(page: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    clone: Clone = request.getfixturevalue("tried" if page == "how-to/compare" else "clone")
    tiny_model(tmp_path, steps=100, guides=("autoguidance",))
    for number in range(100):
        path = clone.path / f"data/mine/{7 + number % 2}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    clone.run("bash", "-e", "-c", script(page), PYTHONPATH="src", **PEOPLE)
