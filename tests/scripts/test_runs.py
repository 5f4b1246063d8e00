"""Which run is meant, whether its numbers belong to it, and what is kept of one as a record."""

import json
from pathlib import Path

import pytest

from exact_stages.console import UserError
from scripts import record
from scripts.runs import open_run
from tests.scripts.conftest import PARAMS, PIPELINE
from tests.with_dvc.dvc_clone import ROOT, Clone, git_clone

METRICS = {"metrics/train/summary.json", "metrics/likelihood/bits.json"}


def seen(rev: str) -> int:
    return int(open_run(rev).mapping("metrics/train/summary.json")["images_seen"])


def test_a_run_is_found_by_any_name(clone: Clone) -> None:
    assert seen("") == seen("main") == seen("HEAD") == 20
    assert seen("first") == seen("HEAD~1") == seen(clone.git("rev-parse", "--short", "first").strip()) == 10
    for rev in ("nothing", "-x", "HEAD:params.yaml", "results/nothing"):
        with pytest.raises(UserError, match=f"^{rev}: no revision, experiment or record"):
            open_run(rev)


def test_a_fresh_clone_has_all_that_is_committed(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = git_clone(clone, tmp_path / "copied")
    assert not (copy.path / "data/mine").exists()
    whole = open_run("")
    assert set(whole.files) == {"params.yaml", "dvc.lock", *METRICS} == set(open_run("main").files)
    assert set(whole.hashes) == {*METRICS, "library", "data/mine", "data/checked.txt", "models/ddpm.bin"}
    monkeypatch.chdir(copy.path)
    assert open_run("") == whole


CHANGES = {  # file and text: what is not up to date then
    ("params.yaml", PARAMS.replace("count: 5", "count: 6")): r"check \(count\), likelihood \(count\)",
    ("library/more.py", "x"): r"check \(library\), train \(library\)",
    ("data/mine/2", "two"): r"train \(data/mine\), data/mine.dvc \(data/mine\)",
    ("metrics/likelihood/bits.json", "[]"): r"likelihood \(metrics/likelihood/bits.json\)",
    ("dvc.yaml", PIPELINE.replace("! grep 9", "! grep 8")): r"likelihood \(changed command\)",
}


@pytest.mark.parametrize(("change", "stale"), CHANGES.items(), ids=lambda each: "-".join(each))
def test_a_workspace_that_is_not_up_to_date_has_no_run(clone: Clone, change: tuple[str, str], stale: str) -> None:
    path = clone.path / change[0]
    path.parent.mkdir(exist_ok=True)
    path.write_text(change[1])
    with pytest.raises(UserError, match=f"^workspace: not up to date: {stale}; run dvc repro$"):
        open_run("")
    assert seen("main") == 20


def test_a_study_that_is_not_up_to_date_does_not_matter(clone: Clone) -> None:
    study = clone.path / "studies/dvc.yaml"
    study.parent.mkdir()
    study.write_text("stages: {count: {wdir: .., cmd: echo, deps: [params.yaml], outs: [rows]}}")
    assert seen("") == 20


def test_an_experiment_that_failed_leaves_no_run(clone: Clone) -> None:
    clone.dvc("exp", "run", "--quiet", "-S", "lr=9", code=255)
    with pytest.raises(UserError, match=r"^workspace: not up to date: likelihood \(models/ddpm.bin\)"):
        open_run("")


def test_of_an_experiment_whose_later_stages_did_not_run_no_number_is_taken(clone: Clone) -> None:
    clone.dvc("exp", "run", "--quiet", "--name", "model", "-S", "lr=7", "train")
    clone.dvc("exp", "run", "--quiet", "--name", "params", "-S", "count=6", "check")
    with pytest.raises(
        UserError, match=r"^model: not up to date: likelihood \(models/ddpm.bin\); run dvc repro there$"
    ):
        open_run("model")
    with pytest.raises(UserError, match=r"^params: not up to date: likelihood \(count\)"):
        open_run("params")


def test_a_record_has_the_data_and_the_metrics_of_its_run_alone(clone: Clone) -> None:
    old = clone.path / "metrics/distill/4/summary.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    clone.commit()
    old.unlink()  # as `dvc checkout` does
    clone.dvc("exp", "run", "--quiet", "--temp", "--name", "slow-new", "-S", "lr=4")
    record.main("slow", ["lr=3"])
    kept = json.loads(Path("results/slow/record.json").read_text())
    assert {f"metrics/{name}.json" for name in kept["metrics"]} == METRICS
    assert f"- md5: {kept['data']}\n" in (clone.path / "data/mine.dvc").read_text()
    (clone.path / "data/mine/3").write_text("three")
    with pytest.raises(UserError, match=r"^data/mine: has changed; run dvc add data/mine, and commit data/mine.dvc$"):
        record.main("slow", ["lr=6"])
    (clone.path / "data/mine/3").unlink()
    with pytest.raises(UserError, match="failed"):
        record.main("slow", ["lr=9"])
    assert seen("slow-new") == 40


def test_a_record_is_kept_and_trusted(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDPM_PRECISION", "portable")
    commit = clone.git("rev-parse", "HEAD").strip()
    record.main("slow", ["lr=3"])
    run = open_run("results/slow")
    assert (run.commit, seen("results/slow")) == (commit, 30)
    assert set(run.files) == {"params.yaml", *METRICS}
    kept = json.loads(Path("results/slow/record.json").read_text())
    assert kept["command"] == "DDPM_PRECISION=portable python -m scripts.record slow lr=3"
    assert kept["machine"]
    assert clone.git("status", "--short").split() == ["??", "results/"]
    (clone.path / "library/code.py").write_text("# later")
    with pytest.raises(UserError, match="commit"):
        record.main("slow", ["lr=4"])
    clone.commit()
    with pytest.raises(UserError, match="failed"):
        record.main("slow", ["lr=9"])
    assert seen("results/slow") == 30
    (clone.path / "results/slow/record.json").write_text("{")
    with pytest.raises(UserError, match=r"^record\.json of results/slow: "):
        open_run("results/slow")


@pytest.mark.parametrize("record", sorted(ROOT.glob("results/*/record.json")), ids=lambda path: path.parent.name)
def test_records_of_any_age_can_be_read(record: Path) -> None:
    run = open_run(str(record.parent))
    assert len(run.commit) == 40
    assert run.mapping("metrics/train/summary.json")["images_seen"] > 0
