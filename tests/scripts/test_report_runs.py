"""Which run is meant, which of its numbers belong to it, and what is kept of one as a record."""

from pathlib import Path

import pytest

from exact_stages.console import UserError
from scripts import record, report
from scripts.reporting import page
from scripts.reporting.runs import open_run
from tests.scripts.conftest import PARAMS, PIPELINE
from tests.with_dvc.dvc_clone import Clone, git_clone

METRICS = {"metrics/train/summary.json", "metrics/likelihood/bits.json"}


def seen(rev: str) -> int:
    return int(open_run(rev).mapping("metrics/train/summary.json")["images_seen"])


def test_a_run_is_found_by_any_name_and_stands_beside_main(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    assert seen("") == seen("main") == seen("HEAD") == 20
    assert seen("first") == seen("HEAD~1") == seen(clone.git("rev-parse", "--short", "first").strip()) == 10
    for rev in ("nothing", "-x", "HEAD:params.yaml", "results/nothing"):
        with pytest.raises(UserError, match=f"^{rev}: no revision, experiment or record"):
            report.main("", rev)
    for each in ("", "first"):
        report.main(each, "")
    clone.git("branch", "--move", "main", "trunk")
    report.main("first", "")
    said = [line.split(", ")[0].split(": ")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["workspace", "first compared with main", "first"]


def test_a_fresh_clone_has_all_that_is_committed(clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = git_clone(clone, tmp_path / "copied")
    assert not (copy.path / "data/mine").exists()
    whole = open_run("")
    assert set(whole.files) == {"params.yaml", *METRICS}
    assert set(whole.hashes) == {*METRICS, "library", "data/mine", "data/checked.txt", "models/ddpm.bin"}
    monkeypatch.chdir(copy.path)
    here = open_run("")
    assert (here.files, here.stale, here.hashes) == (whole.files, {}, whole.hashes)


CHANGES = {  # file and text: what is not up to date then
    ("params.yaml", PARAMS.replace("unread: 0", "unread: 1")): {},  # but for `check`, whose output never changes
    ("params.yaml", PARAMS.replace("count: 5", "count: 6")): {"likelihood": "count"},
    ("params.yaml", PARAMS.replace("lr: 2", "lr: 3")): {"train": "lr", "likelihood": "models/ddpm.bin"},
    ("library/more.py", "x"): {"train": "library", "likelihood": "models/ddpm.bin"},
    ("data/mine/2", "two"): {"train": "data/mine", "likelihood": "models/ddpm.bin"},
    ("metrics/likelihood/bits.json", "[]"): {"likelihood": "metrics/likelihood/bits.json"},
    ("dvc.yaml", PIPELINE.replace("! grep 9", "! grep 8")): {"likelihood": "cmd"},
}


@pytest.mark.parametrize(("change", "stale"), CHANGES.items(), ids=lambda each: "-".join(each))
def test_numbers_that_are_stale_are_left_out(clone: Clone, change: tuple[str, str], stale: dict[str, str]) -> None:
    path = clone.path / change[0]
    path.parent.mkdir(exist_ok=True)
    path.write_text(change[1])
    run = open_run("")
    assert run.stale == stale
    shown = {name.split("/")[1] for name in run.files if name.startswith("metrics/")}
    assert shown == {"train", "likelihood"} - set(stale)
    assert ("models/ddpm.bin" in run.hashes) == ("train" not in stale)
    assert open_run("main").stale == {}
    if "data" not in path.parts:  # which DVC keeps
        clone.commit()
        assert open_run("main").stale == stale, "by what git has of it"


def test_page_and_card_of_an_experiment_that_failed(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.dvc("exp", "run", "--quiet", "-S", "lr=9", code=255)
    report.main("", "")
    told = "workspace: not up to date with this run, numbers left out: likelihood (models/ddpm.bin)"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("build/report.html: workspace compared with main, ")
    assert printed[1] == told
    html = " ".join(Path("build/report.html").read_text().split())
    assert "saw 90 images" in html
    assert "<code>likelihood</code> (models/ddpm.bin)" in html
    report.main("", "", card=True)
    assert capsys.readouterr().out.splitlines()[1] == told
    card = Path("models/README.md")
    assert "likelihood (models/ddpm.bin)" in card.read_text()
    card.write_text(card.read_text().replace("\n---\n", "\nlicense: cc-by-4.0\n---\n", 1) + "mine\n")
    with pytest.raises(UserError, match=r"^REV=first: "):  # the model in the workspace is another
        report.main("first", "", card=True)
    assert "likelihood (models/ddpm.bin)" in card.read_text()
    clone.git("checkout", "--quiet", "--force", "first")
    report.main("", "", card=True)
    anew = page.card(open_run(""))
    assert "likelihood (models/ddpm.bin)" not in anew
    assert card.read_text() == anew.replace("\n---\n", "\nlicense: cc-by-4.0\n---\n", 1) + "mine\n"
    card.write_text("mine\n")
    with pytest.raises(UserError, match=r"^models/README\.md: "):
        report.main("", "", card=True)
    assert card.read_text() == "mine\n"


def test_a_record_is_kept_and_trusted(clone: Clone) -> None:
    commit = clone.git("rev-parse", "HEAD").strip()
    record.main("slow", ["lr=3"])
    run = open_run("results/slow")
    assert (run.commit, seen("results/slow"), run.stale) == (commit, 30, {})
    assert set(run.files) == {"params.yaml", *METRICS}
    assert run.facts["command"] == "python -m scripts.record slow lr=3"
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
