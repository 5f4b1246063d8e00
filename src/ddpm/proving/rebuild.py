"""Build a file again from its commit, in a temporary clone, and compare the bytes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ddpm.diffusion.trail import VARIABLE
from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.processes.device import ARITHMETIC
from ddpm.proving.facts import Provenance, chain, differences, git, read_provenance
from exact_stages.console import UserError
from exact_stages.files import md5, sha256
from exact_stages.provenance import beside

IMAGES = Path("data/processed/train.safetensors")
FIRST_STEP = "rounding: other instructions, or another build of torch"
LATER = "an operation that is rarer than a step, a resumption, or damaged memory"


def rebuild(made: Provenance, commit: str, until: int | None = None) -> list[str]:
    """Run the stages that lead to a file at a commit of this repository; return how the result differs, if it does.

    A training is compared at each step of its trail, and ends at the first that differs; an equal one after `until`.

    Raises:
        UserError: git or a stage fails; its message is above.
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
        trail, dvc = scratch / "trail.json", [sys.executable, "-m", "dvc", "repro", "--no-run-cache"]
        _call([*dvc, "preprocess"], clone, settings_of(made) | own)
        locked = git("show", f"{commit}:dvc.lock").decode()
        if md5(clone / IMAGES) not in locked:
            return [f"{IMAGES}: differs from the recorded one, so nothing was trained; compare the raw files"]
        for step in steps.values():
            trail.write_text(json.dumps({"trail": step.trail or {}, "until": until if step is made else None}))
            settings = settings_of(step) | own | {VARIABLE: str(trail)}
            try:
                _call([*dvc, step.stage], clone, settings)
            except UserError:
                if not (found := json.loads(trail.read_text()).get("said")):
                    raise
                cause = f"likely cause, if no input differs: {FIRST_STEP if 'to step 0,' in found else LATER}"
                return [f"{step.file}: {found}", cause] if "different" in found else []
        if "torch" in made.environment:
            rename_torch(clone / made.file, clone / made.file, made.environment["torch"])
        if not made.sha256 and md5(clone / made.file) in locked:
            return []
        return compare(made, clone)


def rename_torch(file: Path, copy: Path, torch: str) -> None:
    """Copy a model file, with another version of torch in its metadata: equal bytes then say that both round alike."""
    arrays, metadata = load_arrays(file)
    save_arrays(copy, arrays, metadata | {"environment": metadata["environment"] | {"torch": torch}})


def settings_of(made: Provenance) -> dict[str, str]:
    """Return the variables that choose the environment of a provenance, but for those that the user has set."""
    if not (found := made.environment):
        return {}
    chosen = {
        "DDPM_PRECISION": found["precision"],
        "DDPM_DEVICE": "cpu" if found["device"] == "cpu" else "",
        "DDPM_LAUNCH": f"torchrun --nproc-per-node {count}" if (count := found.get("processes", 1)) > 1 else "python",
        **{name: found[name] for name in ARITHMETIC if name in found},
    }
    return {name: value for name, value in chosen.items() if name not in os.environ}


def compare(made: Provenance, clone: Path) -> list[str]:
    """Compare a file with that in a clone which has run its stages.

    Return nothing if they are equal; or the first file on the way that differs, and the likely cause.
    """
    if sha256(clone / made.file) == made.sha256:
        return []
    steps = ((step, read_provenance(clone / name)) for name, step in chain(made).items())
    step, now = next(pair for pair in steps if pair[0].sha256 != pair[1].sha256)
    found = differences(step, now.model_dump())
    causes = [f"{kind} {name}: {fault}" for (kind, name), fault in found.items() if fault]
    unknown = "nothing that is recorded differs; an operation that is not deterministic, or damaged memory"
    return [f"{step.file}: the first file that differs", f"likely cause: {'; '.join(causes) or unknown}"]


def _call(command: list[str], folder: Path = Path(), variables: dict[str, str] | None = None) -> None:
    """Run a command; raise UserError if it fails; its message is above."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_", "PYTHONPATH"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    environment = kept | {"PATH": path, "DVC_NO_ANALYTICS": "1"} | (variables or {})
    if subprocess.run(command, cwd=folder, env=environment).returncode:
        raise UserError(f"{' '.join(command[-3:])}: failed, as said above; nothing was compared")
