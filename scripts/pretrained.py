"""Make the model that comes with the package from models/ddpm.safetensors: src/ddpm/pretrained/mnist.safetensors.

    python -m scripts.pretrained

The weights become float16. mnist.json next to them names the commit and date, and has the scores of the float32 model.
Commit both files. Run this for a release, after `make repro`.
"""

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from ddpm.images.arrays import load_arrays, save_arrays
from exact_stages.console import UserError, run
from exact_stages.files import sha256, write_json
from scripts.reporting.runs import Run, open_run

NAME, MODEL, PACKED = "mnist", Path("models/ddpm.safetensors"), Path("src/ddpm/pretrained")
SCORES = "metrics/evaluate/scores.json"
OF_USE = {  # what a user may want to know, by the name in the JSON file
    "frechet_distance_b": "b.samples.frechet",
    "frechet_distance_b_deviation": "b.samples.frechet_deviation",
    "frechet_distance_b_of_real_images": "b.test.frechet",
    "two_sample_accuracy": "samples.two_sample_accuracy",
    "two_sample_accuracy_deviation": "samples.two_sample_accuracy_deviation",
    "two_sample_accuracy_of_real_images": "baseline.two_sample_accuracy",
    "class_accuracy": "samples.label_accuracy",
    "class_accuracy_of_real_images": "test.label_accuracy",
}


def main() -> None:
    """Make the two files from an up-to-date run.

    Raises:
        UserError: the model or its scores are not up to date, or files are not committed.
    """
    found = up_to_date(open_run(""))
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ".", f":!{PACKED}"]).returncode
    if changed:
        raise UserError(f"git: files have changed; commit them first, since {NAME}.json names the commit")
    weights = PACKED / f"{NAME}.safetensors"
    pack(MODEL, weights)
    scores = found.flat(SCORES)
    facts = {
        "sha256": sha256(weights),
        "made_from_md5": found.hashes[str(MODEL)],
        "commit": found.commit,
        "date": datetime.now(UTC).date().isoformat(),
        "torch": found.mapping("metrics/train/environment.json")["torch"],
        "scores": {name: scores[path] for name, path in OF_USE.items()},
    }
    write_json(PACKED / f"{NAME}.json", facts)
    print(f"{weights}: {weights.stat().st_size:,} bytes, and {NAME}.json; commit both")


def pack(model: Path, packed: Path) -> None:
    """Write a model file again with float16 weights; the model card and other metadata stay."""
    weights, metadata = load_arrays(model)
    halved = {name: each.half() if each.is_floating_point() else each for name, each in weights.items()}
    save_arrays(packed, halved, metadata)


def up_to_date(found: Run) -> Run:
    """Return the run if its model, samples and scores belong to the code and params.

    Raises:
        UserError: a stage is not up to date, or the model file is missing or another.
    """
    needed = {name: cause for name, cause in found.stale.items() if name.split("@")[0] in ("train", "evaluate")}
    if needed:
        which = ", ".join(f"{name} ({cause})" for name, cause in needed.items())
        raise UserError(f"{MODEL}: not up to date: {which}; run make repro, and commit what it changes")
    if not MODEL.exists() or hashlib.md5(MODEL.read_bytes()).hexdigest() != found.hashes[str(MODEL)]:
        raise UserError(f"{MODEL}: missing, or not the model of dvc.lock; run `dvc checkout {MODEL}` or make repro")
    return found


if __name__ == "__main__":
    run(main)
