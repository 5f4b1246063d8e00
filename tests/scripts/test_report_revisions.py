"""Which run is meant: workspace, folder, revision or experiment; and what `python -m scripts.report` says."""

import subprocess
from pathlib import Path

import pytest

from ddpm.pipeline.console import UserError
from scripts import report
from scripts.reporting import page
from scripts.reporting.runs import main_run, open_run


def git(*command: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *who, *command], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commits, and an experiment on the second that only its ref names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page.vl_convert, "javascript_bundle", lambda *_, **__: "// Vega")
    git("init", "--quiet", "--initial-branch", "main")
    for lr in ("0.1", "0.2", "0.3"):
        Path("params.yaml").write_text(f"train: {{lr: {lr}}}\n")
        Path("metrics/train").mkdir(parents=True, exist_ok=True)
        Path("metrics/train/summary.json").write_text(f'{{"parameters": 7, "images_seen": 1{lr[-1]}}}')
        git("add", "--all")
        git("commit", "--quiet", "--message", lr)
    last, base = git("rev-parse", "HEAD"), git("rev-parse", "HEAD~1")
    git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/slower", last)
    git("reset", "--quiet", "--hard", base)
    git("tag", "first", "HEAD~1")


def rate(rev: str) -> float:
    return float(open_run(rev).flat("params.yaml")["train.lr"])


def test_a_run_is_found_by_any_name(tmp_path: Path) -> None:
    assert rate("") == rate("main") == rate("HEAD") == 0.2
    assert rate("first") == rate("HEAD~1") == rate(git("rev-parse", "--short", "first")) == 0.1
    assert rate("slower") == 0.3
    Path("params.yaml").write_text("train: {lr: 0.5}\n")
    assert rate("") == 0.5, "as it is, committed or not"
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/params.yaml").write_text("train: {lr: 0.7}\n")
    assert rate("kept") == 0.7
    run = open_run("slower")
    assert run.mapping("metrics/train/summary.json")["images_seen"] == 13
    assert set(run.files) == {"params.yaml", "metrics/train/summary.json"}


@pytest.mark.parametrize("rev", ["nothing", "refs/heads/nothing", "-x", "docs/nothing"])
def test_an_unknown_revision_is_named_in_one_line(rev: str) -> None:
    with pytest.raises(UserError, match=f"^{rev}: no revision, experiment or folder of a run; "):
        report.main(rev, "")
    with pytest.raises(UserError, match=f"^{rev}: "):
        report.main("", rev)


def test_main_stands_beside_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    report.main("", "")
    assert capsys.readouterr().out.startswith("build/report.html: workspace, 0.0 MB")
    report.main("slower", "")
    assert capsys.readouterr().out.startswith("build/report.html: slower beside main, ")
    html = Path("build/report.html").read_text()
    assert "saw 13 images" in " ".join(html.split())
    assert "train/summary: images_seen" in html
    report.main("slower", "first", out=Path("other.html"))
    assert capsys.readouterr().out.startswith("other.html: slower beside first, ")


def test_without_a_branch_main_a_run_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    git("branch", "--move", "main", "trunk")
    assert main_run() is None
    report.main("slower", "")
    assert capsys.readouterr().out.startswith("build/report.html: slower, ")


def test_card_goes_beside_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    report.main("slower", "", card=True)
    assert capsys.readouterr().out == "models/README.md: the model card of slower\n"
    assert "It has 7 parameters" in Path("models/README.md").read_text()


def test_outside_a_repository_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match=r"^params.yaml: no such file; "):
        report.main("", "")
