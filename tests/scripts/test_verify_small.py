"""What `make verify` says of a small repository that a bad disk, a kill, a merge or its user has damaged.

tests/pipeline/test_verify.py has the pipeline itself.
"""

import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from ddpm.runtime.console import UserError
from scripts import verify as script
from tests.pipeline.dvc_clone import ROOT, Clone, environment, identify

pytestmark = pytest.mark.pipeline
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and capabilities")
STAGE = """
import json, pathlib, sys
made = pathlib.Path(sys.argv[1])
made.parent.mkdir(exist_ok=True)
made.write_text(pathlib.Path("params.yaml").read_text() + made.name)
pathlib.Path("metrics").mkdir(exist_ok=True)
pathlib.Path("metrics", made.stem + ".json").write_text(json.dumps({"length": len(made.read_text())}))
"""
PIPELINE = """
stages:
  one:
    cmd: python stage.py made/one.bin
    deps: [stage.py]
    params: [lr]
    outs: [made/one.bin]
    metrics:
      - metrics/one.json:
          cache: false
  two:
    matrix: {n: [x, y]}
    cmd: python stage.py made/${item.n}.bin
    deps: [stage.py, made/one.bin]
    params: [lr]
    outs: ["made/${item.n}.bin"]
    metrics:
      - metrics/${item.n}.json:
          cache: false
"""
OUTPUT = "made/one.bin"
# Without what lets root read everything.
UNPRIVILEGED = (
    "import ctypes, os, sys; [ctypes.CDLL(None).prctl(24, n) for n in (1, 2)]; os.execvp(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Three stages that ran, a file and a folder of the user's own, and a remote that has it all."""
    clone = Clone(tmp_path_factory.mktemp("small") / "clone")
    clone.path.mkdir()
    clone.git("init", "--quiet", "--initial-branch", "main")
    identify(clone)
    clone.dvc("init", "--quiet")
    clone.dvc("remote", "add", "--default", "storage", "../remote")
    for name, text in (("params.yaml", "lr: 1e-05\n"), ("stage.py", STAGE), ("dvc.yaml", PIPELINE)):
        (clone.path / name).write_text(text)
    (clone.path / "data/mine/deep").mkdir(parents=True)
    for name in ("mine/1", "mine/deep/2", "single"):
        (clone.path / "data" / name).write_text(name)
    clone.dvc("add", "--quiet", "data/mine", "data/single")
    clone.dvc("repro", "--quiet")
    clone.dvc("push", "--quiet", "--run-cache")
    clone.commit()
    return clone


@pytest.fixture
def clone(built: Clone, tmp_path: Path) -> Clone:
    shutil.copytree(built.path.parent / "remote", tmp_path / "remote")
    shutil.copytree(built.path, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")


def verify(clone: Clone, code: int = 0, *before: str) -> str:
    process = clone.start(*before, "python", "-m", "scripts.verify", PYTHONPATH=str(ROOT))
    try:
        printed, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == code, printed
    return printed.replace(f"{clone.path}/", "")


def cached(clone: Clone, md5: str) -> Path:
    return clone.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def object_of(clone: Clone, record: str, path: str) -> Path:
    """Of an output in dvc.lock or a *.dvc file, which write path and hash side by side."""
    lines = (clone.path / record).read_text().split(f"path: {path}\n")
    near = lines[1] if record == "dvc.lock" else lines[0]
    return cached(clone, near.split("md5: ")[-1 if record != "dvc.lock" else 1].split("\n")[0])


def overwrite(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def break_off(path: Path) -> bytes:
    """Leave half of a file, and return all of it."""
    data = path.read_bytes()
    path.chmod(path.stat().st_mode | stat.S_IWUSR)
    path.write_bytes(data[: len(data) // 2])
    return data


def bind(path: Path) -> None:
    """A socket; its address may not be long."""
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(path.parent)
        listening.bind(path.name)
        os.chdir(here)


def test_all_is_whole(clone: Clone) -> None:
    assert "8 outputs and 9 cached objects are whole" in verify(clone)
    assert not clone.git("status", "--porcelain")


@linux
def test_a_read_error_is_named_and_the_rest_is_checked(clone: Clone) -> None:
    (clone.path / OUTPUT).unlink()
    (clone.path / OUTPUT).symlink_to("/proc/self/mem")  # whose first byte cannot be read
    overwrite(clone.path / "made/y.bin", "other")
    printed = verify(clone, 1)
    assert "error: 2 damaged" in printed
    assert f"  {OUTPUT}: cannot be read (Input/output error); delete it, then `dvc checkout {OUTPUT}`\n" in printed
    assert "  made/y.bin: not what dvc.lock records; delete it, then `dvc checkout made/y.bin`" in printed


@linux
@pytest.mark.parametrize("path", [OUTPUT, "made", ".dvc/cache/files/md5", "dvc.lock", "data/mine", ".dvc/tmp/rwlock"])
def test_what_may_not_be_read_is_named_and_the_rest_is_checked(clone: Clone, path: str) -> None:
    overwrite(clone.path / "data/single", "other")
    (clone.path / path).chmod(0)
    try:
        printed = verify(clone, 1, "python", "-c", UNPRIVILEGED)
    finally:
        (clone.path / path).chmod(0o755)
    assert f"  {path}" in printed
    assert "(Permission denied)" in printed or "cannot be read: Permission denied" in printed
    assert "  data/single: not what data/single.dvc records; " in printed


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (Path.mkdir, "a folder where a file belongs"),
        (os.mkfifo, "a pipe where a file belongs"),
        (bind, "a socket where a file belongs"),
        (lambda path: path.symlink_to("/dev/null"), "a device where a file belongs"),
        (lambda path: path.symlink_to("nothing"), "a link to nothing, which is not there"),
        (lambda path: path.symlink_to(path.name), "cannot be read (Too many levels of symbolic links)"),
    ],
)
@pytest.mark.parametrize("where", ["output", "object", "member"])
def test_what_is_no_file_is_damage(clone: Clone, made: Callable[[Path], object], said: str, where: str) -> None:
    path = {"output": clone.path / OUTPUT, "member": clone.path / "data/mine/1"}.get(where)
    path = path or object_of(clone, "dvc.lock", OUTPUT)
    path.unlink()
    made(path)
    printed = verify(clone, 1)
    assert f"error: 1 damaged\n  {path.relative_to(clone.path)}: {said}; delete it, then `dvc " in printed


def test_a_link_to_the_cache_is_no_damage(clone: Clone) -> None:
    (clone.path / OUTPUT).unlink()
    (clone.path / OUTPUT).symlink_to(object_of(clone, "dvc.lock", OUTPUT))
    verify(clone)


@pytest.mark.parametrize("path", ["made", "data/mine", ".dvc/cache/files/md5"])
def test_a_file_in_the_way_of_a_folder(clone: Clone, path: str) -> None:
    shutil.rmtree(clone.path / path)
    (clone.path / path).write_text("in the way")
    assert f"  {path}" in verify(clone, 1)


# What DVC refuses -----------------------------------------------------------------------------------------------------


def test_a_cut_that_dvc_refuses_is_found(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(clone.path.parent).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(clone.path)
    lock = Path("dvc.lock")
    text = lock.read_bytes()
    refused, passed = 0, []
    for cut in random.Random(0).sample(range(len(text)), 400):
        lock.write_bytes(text[:cut])
        if by_dvc := refusal():
            refused += 1
            try:
                script.main()
            except UserError as error:
                if "  dvc.lock: " in str(error):
                    continue
            passed.append((by_dvc, text[:cut][-60:]))
    assert refused > 50
    assert not passed


def refusal() -> str:
    try:
        with Repo() as repo:
            repo.status()
    except Exception as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "text", ["", "stages: [1]", "schema: '2.0'\nstages: {one: {cmd: x, outs: [{path: x}]}}", "\0", "{"]
)
def test_a_damaged_lock_is_one_line(clone: Clone, text: str) -> None:
    (clone.path / "dvc.lock").write_text(text)
    *_, header, line = verify(clone, 1).splitlines()
    assert header == "error: 1 damaged"
    assert line.startswith(("  dvc.lock: not as DVC writes it: ", "  dvc.lock: not valid YAML: "))
    assert line.endswith("; `git checkout dvc.lock`, or delete it: `dvc repro` makes it anew")
    (clone.path / "dvc.lock").unlink()
    clone.dvc("repro")
    verify(clone)


def test_without_a_lock_it_says_what_to_do(clone: Clone) -> None:
    (clone.path / "dvc.lock").unlink()
    assert "  dvc.lock: no such file; run this at the top of the repository; `git checkout dvc.lock`" in verify(
        clone, 1
    )


@pytest.mark.parametrize("name", ["dvc.lock", "data/single.dvc"])
def test_a_cut_of_the_last_letter_is_found_though_dvc_does_not_mind(clone: Clone, name: str) -> None:
    text = (clone.path / name).read_text()
    (clone.path / name).write_text(text[:-2])
    clone.dvc("status")
    assert f"  {name}: not as DVC writes it: its last line is cut off; `git checkout {name}`" in verify(clone, 1)


@pytest.mark.parametrize("text", ["", "outs:\n- md5: 6d7fce9fee47119\n", "outs: [{path: single}", "\0", "wdir: ..\n"])
def test_a_cut_record_of_an_own_file(clone: Clone, text: str) -> None:
    (clone.path / "data/single.dvc").write_text(text)
    printed = verify(clone, 1)
    assert "  data/single.dvc: not " in printed
    assert "; `git checkout data/single.dvc`, or delete it: `dvc add data/single` makes it anew\n" in printed
    (clone.path / "data/single.dvc").unlink()
    clone.dvc("add", "data/single")
    verify(clone)


def test_what_else_dvc_refuses_is_in_its_words(clone: Clone) -> None:
    (clone.path / "dvc.yaml").write_text("stages: [1]")
    assert "DVC refuses its files: './dvc.yaml' validation failed" in verify(clone, 1)


# What a kill leaves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["", '{"write": {}, "re', '{"write": {"a": 1}}'])
def test_a_cut_rwlock(clone: Clone, left: str) -> None:
    rwlock = clone.path / ".dvc/tmp/rwlock"
    rwlock.write_text(left)
    clone.dvc("status", code=1)
    assert "error: 1 damaged\n  .dvc/tmp/rwlock: cut off; delete it, when no dvc runs\n" in verify(clone, 1)
    rwlock.unlink()
    clone.dvc("status")
    verify(clone)


def test_cut_files_of_the_queue(clone: Clone) -> None:
    clone.dvc("exp", "run", "--queue", "-S", "lr=1e-4")
    folder = clone.path / ".dvc/tmp/exps"
    files = [folder / "rwlock", *folder.glob("celery/broker/*/*")]
    assert len(files) > 2
    verify(clone)
    for file in files:
        break_off(file)
    clone.dvc("queue", "status", code=255)
    printed = verify(clone, 1)
    for file in files:
        assert f"  {file.relative_to(clone.path)}: cut off; delete it, when no dvc runs\n" in printed
        file.unlink()
    clone.dvc("queue", "status")
    verify(clone)


@pytest.mark.parametrize("cut", [True, False])
def test_a_run_that_was_not_kept_whole(clone: Clone, cut: bool) -> None:
    """DVC makes a folder, then a file under another name, which it moves; and takes the newest for the run."""
    for file in (clone.path / ".dvc/cache/runs").glob("*/*/*"):
        text = file.read_text()
        file.unlink()
        if cut:
            (file.parent / "half").write_text(text[: text.index("outs:")])
    (clone.path / "dvc.lock").unlink()
    assert "failed to reproduce 'one'" in clone.dvc("repro", code=255)
    clone.git("checkout", "--quiet", "dvc.lock")
    faults = [line for line in verify(clone, 1).splitlines() if "delete this folder, when no dvc runs" in line]
    assert len(faults) == 3
    for line in faults:
        shutil.rmtree(clone.path / line.split(":")[0].strip())
    (clone.path / "dvc.lock").unlink()
    clone.dvc("repro")
    verify(clone)


def test_a_lock_by_hard_links_outlives_a_kill(clone: Clone) -> None:
    clone.dvc("config", "core.hardlink_lock", "true")
    for name in ("lock", "rwlock.lock"):
        (clone.path / ".dvc/tmp" / name).unlink(missing_ok=True)
    (clone.path / "stage.py").write_text("import time; time.sleep(600)")
    process = clone.start("dvc", "repro")
    deadline = time.monotonic() + 120
    while not (clone.path / ".dvc/tmp/lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    clone.git("checkout", "--quiet", "stage.py")
    assert "Unable to acquire lock" in clone.dvc("status", code=255)
    assert ".dvc/tmp/lock: left by a killed dvc; delete it, when no dvc runs" in verify(clone, 1)
    (clone.path / ".dvc/tmp/lock").unlink()
    (clone.path / ".dvc/tmp/rwlock.lock").unlink(missing_ok=True)
    verify(clone)


def test_a_lock_of_git(clone: Clone) -> None:
    lock = clone.path / ".git/index.lock"
    lock.touch()
    verify(clone)  # a moment old, it may be somebody's
    os.utime(lock, (0, 0))
    clone.dvc("exp", "run", "-S", "lr=1e-4", code=255)
    assert ".git/index.lock: left by a killed git or dvc; delete it, when neither runs" in verify(clone, 1)


def test_a_damaged_database(clone: Clone) -> None:
    clone.dvc("status")
    for file in clone.path.parent.glob("site/repo/*/*/local/cache.db"):
        break_off(file)
    assert "database disk image is malformed" in clone.dvc("status", code=255)
    said = f"  {clone.path.parent}/site/repo: DVC's database is damaged (database disk image is malformed); delete it,"
    assert said in verify(clone, 1)
    shutil.rmtree(clone.path.parent / "site/repo")
    clone.dvc("status")
    verify(clone)


def test_a_password_that_dvc_cannot_write(clone: Clone) -> None:
    clone.dvc("remote", "add", "dav", "webdavs://host/path")
    clone.dvc("remote", "modify", "--local", "dav", "user", "me")
    clone.dvc("remote", "modify", "--local", "dav", "password", "p\xe4ssword", code=255)
    assert ".dvc/config.local: empty; delete it, and set anew what it held" in verify(clone, 1)
    clone.dvc("remote", "modify", "--local", "dav", "password", "%(x)s", code=255)
    assert ".dvc/config.local: DVC cannot read it; delete it, and set anew what it held" in verify(clone, 1)
    (clone.path / ".dvc/config.local").unlink()
    verify(clone)


# What a merge leaves --------------------------------------------------------------------------------------------------


def test_conflicts_are_named_and_mended(clone: Clone) -> None:
    clone.git("branch", "theirs")
    for branch, lr in (("theirs", "0.5"), ("main", "0.25")):
        clone.git("checkout", "--quiet", branch)
        (clone.path / "params.yaml").write_text(f"lr: {lr}\n")
        clone.dvc("repro")
        clone.commit()
    assert "CONFLICT" in clone.run("git", "merge", "theirs", code=1)
    printed = verify(clone, 1)
    assert "error: 5 damaged" in printed
    assert "  params.yaml: a merge conflict of git; keep one side of it, and delete the lines of <<<<<<<" in printed
    for file in ("dvc.lock", "metrics/one.json", "metrics/x.json", "metrics/y.json"):
        said = f"  {file}: a merge conflict of git; `git checkout --ours {file}`, or --theirs, of all the same"
        assert said in printed
        clone.git("checkout", "--ours", file)
    (clone.path / "params.yaml").write_text("lr: 0.25\n")
    clone.dvc("repro")
    verify(clone)


@pytest.mark.parametrize("name", ["dvc.lock", "metrics/one.json"])
def test_a_committed_conflict_is_deleted(clone: Clone, name: str) -> None:
    text = (clone.path / name).read_text()
    (clone.path / name).write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> theirs\n")
    clone.commit()
    assert f"error: 1 damaged\n  {name}: a merge conflict of git; " in verify(clone, 1)
    (clone.path / name).unlink()
    clone.dvc("repro")
    verify(clone)


# The user's own data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["data/single", "data/mine/deep/2"])
def test_own_data_is_mended_from_the_cache(clone: Clone, path: str) -> None:
    added = path.removesuffix("/deep/2")
    text = (clone.path / path).read_text()
    overwrite(clone.path / path, "other")
    said = f"  {path}: not what {added}.dvc records; `dvc add {added}` if you changed it, else delete it, then "
    assert f"{said}`dvc checkout {added}`\n" in verify(clone, 1)
    (clone.path / path).unlink()
    if path != added:
        assert f"  {path}: not there; " in verify(clone, 1)
    clone.dvc("checkout", added)
    assert (clone.path / path).read_text() == text
    verify(clone)


def test_own_data_is_mended_from_the_remote(clone: Clone) -> None:
    stored = object_of(clone, "data/single.dvc", "single")
    overwrite(clone.path / "data/single", "other")
    overwrite(stored, "damaged")
    printed = verify(clone, 1)
    assert "error: 2 damaged" in printed
    assert "  data/single: not what data/single.dvc records; " in printed
    assert "else delete it, then `dvc pull data/single`\n" in printed
    assert (
        f"  {stored.relative_to(clone.path)}: damaged; delete it, then `dvc pull` or `dvc add data/single`" in printed
    )
    stored.unlink()
    (clone.path / "data/single").unlink()
    clone.dvc("pull", "data/single")
    verify(clone)


@pytest.mark.parametrize("added", ["data/single", "data/mine"])
def test_an_object_is_made_from_whole_data(clone: Clone, added: str) -> None:
    text = (clone.path / f"{added}.dvc").read_text()
    stored = object_of(clone, f"{added}.dvc", Path(added).name)
    if added == "data/mine":
        stored = cached(clone, json.loads(stored.read_text())[0]["md5"])
    overwrite(stored, "damaged")
    assert f": damaged; delete it, then `dvc pull` or `dvc add {added}`, if that is whole\n" in verify(clone, 1)
    stored.unlink()
    clone.dvc("add", added)
    assert stored.exists()
    assert (clone.path / f"{added}.dvc").read_text() == text
    verify(clone)


def test_a_folder_without_its_listing_is_not_checked(clone: Clone) -> None:
    object_of(clone, "data/mine.dvc", "mine").unlink()
    overwrite(clone.path / "data/mine/1", "other")
    assert "data/mine: not checked, since its listing is not in the cache; `dvc pull data/mine`\n" in verify(clone)


def test_a_folder_that_is_not_here_is_no_damage(clone: Clone) -> None:
    shutil.rmtree(clone.path / "data/mine")
    assert "1 of 8 outputs are not here, which is no damage" in verify(clone)
