"""Build a file again from its commit, in a temporary clone, and compare the bytes."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from ddpm.compute.device import ARITHMETIC
from ddpm.images.arrays import load_arrays
from ddpm.proving.facts import KINDS, Provenance, chain, differences, git, read_provenance
from exact_stages.console import UserError
from exact_stages.files import md5, sha256
from exact_stages.provenance import beside


def rebuild(file: Path, made: Provenance, commit: str) -> list[str]:
    """Run the stages that lead to a file at a commit of this repository; return how the result differs, if it does.

    Raises:
        UserError: git or a stage fails, which has said why.
    """
    steps = chain(made)
    with tempfile.TemporaryDirectory(prefix="ddpm-prove-") as folder:
        scratch = Path(folder).resolve()
        clone = scratch / "clone"
        _call(["git", "clone", "--quiet", "--shared", "--no-checkout", ".", str(clone)])
        _call(["git", "-C", str(clone), "checkout", "--quiet", "--detach", commit])
        for name in {name for step in steps.values() for name in step.inputs}:
            path, copy = Path(name), (clone / name).resolve()  # the raw files; those at an absolute path stay there
            made_or_committed = beside(path).as_posix() in steps or copy.exists()
            if not made_or_committed and path.is_file() and copy.is_relative_to(scratch):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        own = {f"DVC_{name}_DIR": f"{scratch}/{name}" for name in ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")}
        own["TMPDIR"] = folder
        for step in steps.values():
            _call([sys.executable, "-m", "dvc", "repro", "--no-run-cache", step.stage], clone, settings_of(step) | own)
        return compare(file, made, commit, clone)


def settings_of(made: Provenance) -> dict[str, str]:
    """Return the variables that choose the environment of a provenance, but for those that the user has set."""
    if not (found := made.environment):
        return {}
    wanted = {
        "DDPM_PRECISION": found["precision"],
        "DDPM_DEVICE": "cpu" if found["device"] == "cpu" else "",
        "DDPM_ACCUMULATE": str(found.get("accumulation_steps", 1)),
        "DDPM_LAUNCH": f"torchrun --nproc-per-node {count}" if (count := found.get("processes", 1)) > 1 else "python",
        **{name: found[name] for name in ARITHMETIC if name in found},
    }
    if "threads" in found:  # of code before workers had one thread each
        wanted["DDPM_THREADS"] = str(found["threads"])
    return {name: value for name, value in wanted.items() if name not in os.environ}


def compare(file: Path, made: Provenance, commit: str, clone: Path) -> list[str]:
    """Compare what a commit recorded of a file, and of what it was made from, with a clone that has run the stages.

    Return nothing if the file is equal; or the first output that differs, by how much, and the likely cause.
    """
    if sha256(clone / made.file) == made.sha256:
        return []
    lock = YAML(typ="safe").load(git("show", f"{commit}:dvc.lock"))["stages"]
    for step in chain(made).values():
        outs = sorted(lock[step.stage]["outs"], key=lambda out: (out["path"].startswith("metrics/"), out["path"]))
        recorded = beside(Path(step.file))
        paths = [out["path"] for out in outs if out["path"] != str(recorded) and md5(clone / out["path"]) != out["md5"]]
        if paths:
            now = {kind: getattr(read_provenance(clone / recorded), kind) for kind in KINDS}
            causes = [f"{kind} {name}: {fault}" for (kind, name), fault in differences(step, now).items() if fault]
            unknown = "nothing that is recorded differs; an operation that is not deterministic, or damaged memory"
            before = file if step is made else Path(step.file)
            losses = [line for path in paths if path.endswith(".csv") for line in _in_losses(path, commit, clone)]
            return [
                f"{paths[0]}: the first output that differs",
                *_in_weights(before, clone / step.file),
                *(losses or ["no recorded loss differs"]),
                f"likely cause: {'; '.join(causes) or unknown}",
            ]
    return [f"{made.file}: differs, although all that dvc.lock records is equal; its provenance is of another file"]


def _in_weights(before: Path, after: Path) -> Iterator[str]:
    """Tell how many arrays differ, and by how much."""
    if not before.is_file():
        return
    (ours, _), (theirs, _) = load_arrays(before), load_arrays(after)
    if {name: array.shape for name, array in ours.items()} != {name: array.shape for name, array in theirs.items()}:
        yield "its arrays have other names or shapes"
        return
    most = [float((array.float() - theirs[name].float()).abs().max()) for name, array in ours.items()]
    yield f"{sum(each > 0 for each in most)} of {len(most)} arrays differ, by at most {max(most):.3g}"


def _in_losses(path: str, commit: str, clone: Path) -> Iterator[str]:
    """Tell where a curve begins to differ, and by how much."""
    recorded, rebuilt = git("show", f"{commit}:{path}").decode(), (clone / path).read_text()
    head, *rows = (line.split(",") for line in recorded.splitlines())
    others = (line.split(",") for line in rebuilt.splitlines()[1:])
    if pair := next((pair for pair in zip(rows, others, strict=False) if pair[0] != pair[1]), None):
        yield f"{path}: from {head[0]} {pair[0][0]}, where {head[-1]} is {pair[1][-1]}, not {pair[0][-1]}"


def _call(command: list[str], folder: Path = Path(), variables: dict[str, str] | None = None) -> None:
    """Run a command, and end all its processes if this one is interrupted."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_", "PYTHONPATH"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    environment = kept | {"PATH": path, "DVC_NO_ANALYTICS": "1"} | (variables or {})
    process = psutil.Popen(command, cwd=folder, env=environment)
    try:
        failed = process.wait()
    except BaseException:
        family = [*process.children(recursive=True), process]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family)
        raise
    if failed:
        raise UserError(f"{' '.join(command[-3:])}: failed, as said above; nothing was compared")
