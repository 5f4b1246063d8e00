"""The whole pipeline with real dvc: its outputs, the same bytes again, experiments, and mistakes in params."""

import re
import shutil
from pathlib import Path

import pytest

from ddpm.processes.portable import lacking
from tests.with_dvc.dvc_clone import STAGES, WORKERS, Built, Clone, git_clone, ran, read_json, restored

WRITTEN = {"data/README.md", "data/clip_art.safetensors", "data/scratch"}  # by hand
FIRST = ["data/checked.txt"]  # only makes `check` come first
UNREAD = {"download": FIRST, "preprocess": [*FIRST, "data/clip_art.safetensors"]}  # digits begin from scratch
UNREAD |= {"evaluate": ["models/classifier-b.safetensors"]}  # in place of which a judge scores MNIST
BEHIND_TRAIN = {*STAGES[STAGES.index("train") + 1 :]}


def test_the_first_run_runs_every_stage_and_makes_every_output(pipeline: Built) -> None:
    lock = pipeline.clone.lock()
    assert ran(pipeline.output) == set(lock) - {"check", "code"} == set(STAGES)
    outputs = {out["path"] for stage in lock.values() for out in stage["outs"]} - {"code"}
    made = {*pipeline.clone.bytes_under("data", "models", "metrics")} - WRITTEN
    assert {re.sub(r"^(data/\w*mnist)/.*", r"\1", path) for path in made} == outputs
    assert [*pipeline.clone.bytes_under("data/fashion_mnist")] == ["data/fashion_mnist/README"], "it is not fetched"
    tracked = set(pipeline.clone.git("ls-files", "data", "models", "metrics").split())
    assert tracked == {*pipeline.clone.bytes_under("metrics"), *WRITTEN}
    assert read_json(pipeline.clone.path / "metrics/sample/scored.json")["model"]["classes"] == ["7"]
    scores = read_json(pipeline.clone.path / "metrics/evaluate/scores.json")
    assert scores["b"]["samples"]["frechet"] > scores["b"]["test"]["frechet"] > 0, "it samples noise"


@pytest.mark.long
def test_a_stage_reads_and_writes_what_it_declares(clone: Clone) -> None:
    for stage in STAGES:
        printed = clone.run("python", "-m", "exact_stages", "trace", stage, PYTHONPATH="src")
        assert re.findall("^      - (.*)$", printed, re.MULTILINE) == UNREAD.get(stage, []), printed


def test_the_second_run_runs_nothing(clone: Clone) -> None:
    output = clone.dvc("repro")
    assert (ran(output), restored(output)) == (set(), set()), output
    assert clone.git("status", "--porcelain") == ""


def test_a_comment_reruns_nothing_and_code_the_stages_that_import_it(clone: Clone) -> None:
    clone.append("src/ddpm/diffusion/unet.py", "# a comment")
    clone.append("src/ddpm/diffusion/likelihood.py", "UNUSED = 1")
    output = clone.dvc("repro")
    assert (ran(output), restored(output)) == ({"likelihood"}, set()), output
    changed = clone.git("diff", "--stat=200", "--", "code", "dvc.lock")
    assert re.findall(r"^ (\S+)", changed, re.MULTILINE)[:-1] == ["code/likelihood.txt", "dvc.lock"]
    clone.git("checkout", "src/ddpm/diffusion/likelihood.py")
    output = clone.dvc("repro")
    assert (ran(output), restored(output)) == (set(), {"likelihood"}), output


@pytest.mark.long
def test_an_independent_run_of_two_workers_gives_the_bytes_of_one(pipeline: Built, tmp_path: Path) -> None:
    again = git_clone(pipeline.clone, tmp_path, "main~1")  # before its results were committed; with a cache of its own
    assert ran(again.run("dvc", "repro", **WORKERS)) == set(STAGES)
    texts = [(each.path / "dvc.lock").read_text().rstrip() for each in (again, pipeline.clone)]
    ours, theirs = (sorted(re.split(r"\n(?=  \S)", text)) for text in texts)  # DVC orders the stages of a new lock anew
    assert len(ours) > len(STAGES)
    assert ours == theirs
    assert again.bytes_under("metrics") == pipeline.clone.bytes_under("metrics")
    shutil.rmtree(tmp_path)


@pytest.mark.long
@pytest.mark.skipif(lacking() != "", reason=lacking())
def test_a_stage_left_in_another_precision_is_named_until_it_is_forced_and_shared(clone: Clone, tmp_path: Path) -> None:
    portable = {"DDPM_PRECISION": "portable", "PYTHONPATH": "src"}
    made_in = read_json(clone.path / "metrics/train/environment.json")["precision"]
    assert ran(clone.run("dvc", "repro", "train", **portable)) == set()
    left = f"train: up to date, but made in {made_in}, not portable; `dvc repro --force` makes all stages again"
    assert left in clone.run("python", "-m", "scripts.equal", **portable)
    assert ran(clone.run("dvc", "repro", "--force", "--single-item", "train", **portable)) == {"train"}
    said = clone.run("python", "-m", "scripts.equal", **portable)
    assert left not in said
    assert f"as expected: made in portable mode, the committed one in {made_in}." in said
    clone.dvc("remote", "add", "--default", "folder", str(tmp_path / "remote"))
    clone.dvc("push", "train")
    clone.commit()
    fresh = git_clone(clone, tmp_path / "fresh")
    fresh.dvc("pull", "train")
    model = fresh.run("python", "-m", "scripts.equal", PYTHONPATH="src").splitlines()[-1]
    assert model == "models/ddpm.safetensors: equal to the committed one, byte for byte"


@pytest.mark.parametrize("way", ["repro train", "exp run --temp"])
@pytest.mark.parametrize(
    ("wrong", "errors"),
    [
        ({"likelihood.images": -1}, "1 invalid\n  likelihood.images: "),
        ({"data.set": "data/typo", "sample.preview.keep_every": 0}, "2 invalid\n  data.set: data/typo: no such folder"),
    ],
    ids=["value", "set"],
)
def test_a_wrong_parameter_ends_a_run_before_it_begins(
    way: str, wrong: dict[str, object], errors: str, clone: Clone
) -> None:
    wrong = {"train.lr": 0.0005, "data.fit": "pad", **wrong}  # the first stages would run, too
    options = [f"--set-param={name}={value}" for name, value in wrong.items()] if way.startswith("exp") else []
    if not options:
        clone.edit_params(wrong)
    output = clone.dvc(*way.split(), *options, code=255)
    assert f"error: params.yaml: {errors}" in output
    assert "Traceback" not in output
    assert re.search("^Running stage 'check'", output, re.MULTILINE)
    assert ran(output) == set(), output


def test_an_experiment_runs_train_and_what_is_behind_it(experiment: Built) -> None:
    assert (ran(experiment.output), restored(experiment.output)) == ({"train", *BEHIND_TRAIN}, set()), experiment.output


def test_the_way_back_is_restored_from_the_run_cache(tried: Clone) -> None:
    tried.git("checkout", "params.yaml")
    output = tried.dvc("repro")
    assert (ran(output), restored(output)) == (set(), {"train", *BEHIND_TRAIN}), output
    assert tried.git("status", "--porcelain") == ""
