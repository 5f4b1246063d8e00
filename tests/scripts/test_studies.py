"""`make studies` by real dvc, in a small repository: a fresh clone has nothing to do, and rows are made again."""

import json
import re
import shutil
from pathlib import Path

from tests.with_dvc.dvc_clone import ROOT, Clone, git_clone, identify, ran

PIPELINE = """
stages:
  code: {cmd: python -m exact_stages code, always_changed: true, outs: [code: {cache: false, persist: true}]}
  own: {cmd: 'echo ${train.lr} > data', params: [train], outs: [data]}
"""
STUDIES = """
vars: [{minutes: 3}]
stages:
  count:
    foreach: [a, b]
    do:
      wdir: ..
      cmd: python studies/count.py ${item}
      meta: {core_minutes: "${minutes}", runs: "4,5"}
      deps: [code/count.txt, studies/default.yaml]
      outs:
        - studies/count/rows/${item}.json: {cache: false}
  count_table:
    wdir: ..
    cmd: cat studies/count/rows/* > studies/count/table.md
    deps: [studies/count/rows]
    outs: [studies/count/table.md: {cache: false}]
"""
SCRIPT = """import sys
from pathlib import Path
from exact_stages.stage import Stage
with Stage("count", sys.argv[1]) as stage:
    stage.write_json(Path("studies/count/rows", f"{sys.argv[1]}.json"), {"rows": [sys.argv[1]]})
"""
PAGE, TABLE = "A page.\n<!-- from table.md -->\nold\n<!-- end -->\n", "studies/count/table.md"
FILES = {
    "dvc.yaml": PIPELINE,
    "params.yaml": json.dumps({"train": {"lr": 1}, "sample": {"preview": 1, "scored": 1}}),
    "studies/dvc.yaml": STUDIES,
    "studies/count.py": SCRIPT,
    "studies/rates.json": '{"start": 30, "samples": 20}',
    "studies/count/README.md": PAGE,
    ".gitignore": ".resume\n/data\n",
}
PATHS = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


def studies(clone: Clone, *arguments: str) -> str:
    return clone.run("python", "-m", "scripts.studies", *arguments, **PATHS)


def named(clone: Clone) -> set[str]:
    """What is out of date, by `dvc status`; but for the stage code."""
    return {*re.findall(r"^(\S+):$", clone.dvc("status"), re.MULTILINE)} - {"code"}


def test_a_fresh_clone_names_no_study_and_remakes_deleted_rows_to_the_same_bytes(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "first/clone")
    for name, text in FILES.items():
        (clone.path / name).parent.mkdir(parents=True, exist_ok=True)
        (clone.path / name).write_text(text)
    clone.git("init", "--quiet", "--initial-branch", "main")
    identify(clone)
    clone.dvc("init", "--quiet")
    clone.dvc("remote", "add", "--default", "folder", str(tmp_path / "remote"))
    assert ran(clone.run("dvc", "repro", **PATHS)) == {"own"}
    said = studies(clone, "count")
    assert "3 stages, 13 core-minutes: " in said
    assert ran(said) == {f"studies/dvc.yaml:{name}" for name in ("count@a", "count@b", "count_table")}
    assert (clone.path / "studies/count/README.md").read_text() == PAGE.replace(
        "old\n", f"\n{(clone.path / TABLE).read_text()}\n"
    )
    clone.commit()
    clone.dvc("push", "--quiet")

    fresh = git_clone(clone, tmp_path / "fresh")
    assert named(fresh) == {"own"}, "whose output is in the remote"
    fresh.dvc("pull")
    assert not named(fresh)
    (fresh.path / "params.yaml").write_text(FILES["params.yaml"].replace('"lr": 1', '"lr": 2'))
    assert ran(fresh.run("dvc", "repro", **PATHS)) == {"own"}
    assert not named(fresh), "a study is not of the user's params"
    assert "studies/default.yaml: not params.yaml's train.lr" in studies(fresh, "--dry")
    fresh.git("checkout", "--quiet", ".")

    row = fresh.path / "studies/count/rows/b.json"
    row.unlink()
    assert "count@b: studies/count/rows/b.json: deleted\n" in studies(fresh, "--dry")
    assert ran(studies(fresh)) == {"studies/dvc.yaml:count@b"}
    assert fresh.git("status", "--porcelain") == ""
    fresh.append("studies/count.py", "UNUSED = 1")
    assert "count@a: studies/count.py changed\n" in studies(fresh, "count", "--dry")
    assert ran(fresh.run("dvc", "repro", **PATHS)) == set()
    shutil.rmtree(tmp_path)
