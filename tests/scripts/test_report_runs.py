"""Which run is meant, which of its numbers belong to it, and what is kept of one as a record."""

import json
import shutil
from pathlib import Path

import pytest

from exact_stages.console import UserError
from scripts import record, report
from scripts.reporting import page
from scripts.reporting.runs import main_run, open_run
from tests.with_dvc.dvc_clone import Clone, environment, git_clone, identify

TRAIN = """
import json, pathlib
lr = float(pathlib.Path("params.yaml").read_text().split("lr: ")[1].split()[0])
for path, text in {
    "models/ddpm.bin": f"{lr} {pathlib.Path('data/mine/1').read_text()}",
    "metrics/train/summary.json": json.dumps({"parameters": 7, "images_seen": int(10 * lr)}),
}.items():
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(text)
"""
LIKELIHOOD = """
import json, pathlib
lr = float(pathlib.Path("models/ddpm.bin").read_text().split()[0])
assert lr < 9
pathlib.Path("metrics/likelihood").mkdir(parents=True, exist_ok=True)
pathlib.Path("metrics/likelihood/bits.json").write_text(json.dumps({"test": {"bits_per_dim": lr}}))
"""
PIPELINE = """
stages:
  check:
    cmd: python -c "open('data/checked.txt', 'w').write('valid')"
    deps: [library, likelihood.py]
    params: [params.yaml: ]
    outs: [data/checked.txt]
  train:
    cmd: python train.py
    deps: [train.py, library, data/mine, data/checked.txt]
    params: [lr]
    outs: [models/ddpm.bin]
    metrics: [metrics/train/summary.json: {cache: false}]
  likelihood:
    cmd: python likelihood.py
    deps: [likelihood.py, models/ddpm.bin]
    params: [count]
    metrics: [metrics/likelihood/bits.json: {cache: false}]
"""
FILES = {
    "params.yaml": "lr: 1\ncount: 5\nunread: 0\n",
    "dvc.yaml": PIPELINE,
    "train.py": TRAIN,
    "likelihood.py": LIKELIHOOD,
    "library/code.py": "",
    "data/mine/1": "one",
    ".dvcignore": "__pycache__/\n",
}
METRICS = {"metrics/train/summary.json", "metrics/likelihood/bits.json"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Two stages that ran, on a folder that DVC tracks; the tag `first` is the commit before the last."""
    clone = Clone(tmp_path_factory.mktemp("runs") / "clone")
    clone.path.mkdir()
    clone.git("init", "--quiet", "--initial-branch", "main")
    identify(clone)
    clone.dvc("init", "--quiet")
    for name, text in FILES.items():
        (clone.path / name).parent.mkdir(parents=True, exist_ok=True)
        (clone.path / name).write_text(text)
    clone.dvc("add", "--quiet", "data/mine")
    clone.dvc("repro", "--quiet")
    clone.commit()
    clone.git("tag", "first")
    (clone.path / "params.yaml").write_text("lr: 2\ncount: 5\nunread: 0\n")
    clone.dvc("repro", "--quiet")
    clone.commit()
    return clone


@pytest.fixture(autouse=True)
def clone(built: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    shutil.copytree(built.path, tmp_path / "clone", symlinks=True)
    monkeypatch.chdir(tmp_path / "clone")
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(page.vl_convert, "javascript_bundle", lambda *_, **__: "// Vega")
    return Clone(tmp_path / "clone")


def seen(rev: str) -> int:
    return int(open_run(rev).mapping("metrics/train/summary.json")["images_seen"])


def metrics(rev: str) -> set[str]:
    return {path for path in open_run(rev).files if path.startswith("metrics/")}


def test_a_run_is_found_by_any_name(clone: Clone) -> None:
    assert seen("") == seen("main") == seen("HEAD") == 20
    assert seen("first") == seen("HEAD~1") == seen(clone.git("rev-parse", "--short", "first").strip()) == 10
    for rev in ("nothing", "refs/heads/nothing", "-x", "HEAD:params.yaml", "results/nothing"):
        with pytest.raises(UserError, match=f"^{rev}: no revision, experiment or record"):
            report.main(rev, "")
        with pytest.raises(UserError, match=f"^{rev}: "):
            report.main("", rev)


def test_a_fresh_clone_shows_all_that_is_committed(
    clone: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = git_clone(clone, tmp_path / "copied")
    assert not (copy.path / "data/mine").exists()
    whole = open_run("")
    assert set(whole.files) == {"params.yaml", *METRICS}
    code = {"library", "likelihood.py", "train.py"}
    assert set(whole.hashes) == {*METRICS, *code, "data/mine", "data/checked.txt", "models/ddpm.bin"}
    monkeypatch.chdir(copy.path)
    here = open_run("")
    assert (here.files, here.stale, here.hashes) == (whole.files, {}, whole.hashes)


CHANGES = {  # file and text: what is not up to date then
    ("params.yaml", "lr: 2\ncount: 5\nunread: 1\n"): {},  # but for `check`, whose output never changes
    ("library/__pycache__/code.pyc", "x"): {},
    ("params.yaml", "lr: 2\ncount: 6\nunread: 0\n"): {"likelihood": "count"},
    ("params.yaml", "lr: 3\ncount: 5\nunread: 0\n"): {"train": "lr", "likelihood": "models/ddpm.bin"},
    ("library/more.py", "x"): {"train": "library", "likelihood": "models/ddpm.bin"},
    ("data/mine/2", "two"): {"train": "data/mine", "likelihood": "models/ddpm.bin"},
    ("metrics/likelihood/bits.json", "{}"): {"likelihood": "metrics/likelihood/bits.json"},
    ("dvc.yaml", PIPELINE.replace("python likelihood.py", "python -u likelihood.py")): {"likelihood": "cmd"},
}


@pytest.mark.parametrize(("change", "stale"), CHANGES.items(), ids=lambda each: "-".join(each))
def test_numbers_of_stages_that_are_not_up_to_date_are_left_out(
    clone: Clone, change: tuple[str, str], stale: dict[str, str]
) -> None:
    path, text = clone.path / change[0], change[1]
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert open_run("").stale == stale
    assert {name.split("/")[1] for name in metrics("")} == {"train", "likelihood"} - set(stale)
    assert ("models/ddpm.bin" in open_run("").hashes) == ("train" not in stale)
    assert open_run("main").stale == {}
    if "data" not in path.parts:  # which DVC keeps
        clone.commit()
        assert open_run("main").stale == stale, "by what git has of it"


def test_data_that_were_exchanged_count_where_they_are_absent(clone: Clone) -> None:
    (clone.path / "data/mine/1").write_text("another")
    clone.dvc("add", "--quiet", "data/mine")
    clone.commit()
    shutil.rmtree(clone.path / "data/mine")
    assert open_run("").stale == open_run("main").stale == {"train": "data/mine", "likelihood": "models/ddpm.bin"}


def test_of_an_experiment_and_of_one_that_failed(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    clone.dvc("exp", "run", "--quiet", "--name", "faster", "train", "-S", "lr=4")
    assert open_run("faster").stale == open_run("").stale == {"likelihood": "models/ddpm.bin"}
    assert (seen("faster"), metrics("faster")) == (40, {"metrics/train/summary.json"})
    clone.dvc("exp", "run", "--quiet", "-S", "lr=9", code=255)
    report.main("", "faster", out=Path("page.html"))
    told = [f"{name}: not up to date with this run, numbers left out: likelihood" for name in ("workspace", "faster")]
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()[1:]] == told
    html = " ".join(Path("page.html").read_text().split())
    assert "saw 90 images" in html
    assert "<code>likelihood</code> (models/ddpm.bin)" in html
    assert "bits per dimension" not in html
    report.main("", "", card=True)
    assert capsys.readouterr().out.splitlines()[1].startswith(told[0])
    text = Path("models/README.md").read_text()
    assert "It has 7 parameters" in text
    assert "likelihood (models/ddpm.bin)" in text
    assert "bits per dimension" not in text
    card = Path("models/README.md")
    card.write_text(text + "mine\n")
    report.main("first", "", card=True)
    assert card.read_text() == page.card(open_run("first")) + "mine\n"
    card.write_text("mine\n")
    with pytest.raises(UserError, match=r"^models/README\.md: "):
        report.main("", "", card=True)
    assert card.read_text() == "mine\n"


def test_main_stands_beside_what_differs(clone: Clone, capsys: pytest.CaptureFixture[str]) -> None:
    report.main("", "")
    assert capsys.readouterr().out.startswith("build/report.html: workspace, 0.0 MB")
    report.main("first", "")
    assert capsys.readouterr().out.startswith("build/report.html: first compared with main, ")
    html = Path("build/report.html").read_text()
    assert "train/summary: images_seen" in html
    clone.git("branch", "--move", "main", "trunk")
    assert main_run() is None
    report.main("first", "")
    assert capsys.readouterr().out.startswith("build/report.html: first, ")


def test_a_conflict_in_the_lock_and_another_folder_end_in_one_line(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clone.path / "dvc.lock").write_text("<<<<<<< HEAD\n")
    with pytest.raises(UserError, match=r"^dvc\.lock: a merge conflict"):
        open_run("")
    monkeypatch.chdir(clone.path / "library")
    with pytest.raises(UserError, match=r"^params\.yaml: "):
        open_run("")


def test_a_record_is_kept_and_trusted(clone: Clone) -> None:
    (clone.path / "results/slow").mkdir(parents=True)
    (clone.path / "results/slow/README.md").write_text("why")
    clone.commit()
    commit = clone.git("rev-parse", "HEAD").strip()
    record.main("slow", ["lr=3"])
    run = open_run("results/slow")
    assert (run.commit, seen("results/slow"), metrics("results/slow"), run.stale) == (commit, 30, METRICS, {})
    facts = run.mapping("run.json")
    assert facts["command"] == "python -m scripts.record slow lr=3"
    assert (facts["up_to_date"], facts["machine"], facts["torch"]) == (True, None, None)
    assert clone.git("status", "--short").split() == [
        "??", "results/slow/metrics/", "??", "results/slow/params.yaml", "??", "results/slow/run.json",
    ]  # fmt: skip
    (clone.path / "library/code.py").write_text("# later")
    with pytest.raises(UserError, match="commit"):
        record.main("slow", ["lr=4"])
    clone.commit()
    with pytest.raises(UserError, match="failed"):
        record.main("slow", ["lr=9"])
    assert (seen("results/slow"), metrics("results/slow")) == (30, METRICS), "by what run.json says"
    (clone.path / "results/slow/run.json").write_text(json.dumps(facts | {"up_to_date": False}))
    with pytest.raises(UserError, match=r"^results/slow/run\.json: "):
        open_run("results/slow")
