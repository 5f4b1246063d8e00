"""Make the model that comes with the package from models/ddpm.safetensors: src/ddpm/pretrained/mnist.safetensors.

    python -m scripts.pretrained [--check]

The weights become float16. mnist.json next to them names the commit and date, and has the scores of the float32 model.
Commit both files. Run this for a release, after `make repro`.

--check writes nothing: it samples the population of params.yaml with the float16 weights, scores it, and prints the
scores next to the recorded ones. This takes about as long as the stages sample@population, filter and evaluate.
"""

import argparse
import hashlib
import subprocess
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from dvc.utils.flatten import flatten

from ddpm.classifier.model import NAMES, load_classifier
from ddpm.cli.generate import sample_images
from ddpm.compute.device import start
from ddpm.images.splits import load_split
from ddpm.judging.filtering import FilterParams, filtered
from ddpm.pipeline.console import UserError, run
from ddpm.pipeline.files import write_json
from ddpm.pipeline.params import load_params
from ddpm.pipeline.process import sha256
from ddpm.pretrained.models import load_pretrained, pack
from ddpm.sampling.generation import sample_labels, wanted_classes
from ddpm.sampling.samples import SampleParams
from ddpm.scoring.evaluation import EvaluateParams, evaluate
from scripts.reporting.runs import Run, open_run

NAME, MODEL, PACKED = "mnist", Path("models/ddpm.safetensors"), Path("src/ddpm/pretrained")
SCORES = "metrics/evaluate/scores.json"
PROCESSED, CLASSIFIER = Path("data/processed"), "models/classifier-{}.safetensors"
OF_USE = {  # what a user may want to know, by the name in the JSON file
    "frechet_distance_b": "b.samples.frechet",
    "frechet_distance_b_deviation": "b.samples.frechet_deviation",
    "frechet_distance_b_of_real_images": "b.baseline.frechet",
    "two_sample_accuracy": "samples.two_sample_accuracy",
    "two_sample_accuracy_deviation": "samples.two_sample_accuracy_deviation",
    "two_sample_accuracy_of_real_images": "baseline.two_sample_accuracy",
    "class_accuracy": "samples.label_accuracy",
    "class_accuracy_of_real_images": "test.label_accuracy",
}


def main(check: bool = False) -> None:
    """Make the two files from an up-to-date run, or check the scores of the float16 weights.

    Raises:
        UserError: the model or its scores are not up to date, or files are not committed.
    """
    found = up_to_date(open_run(""))
    if check:
        compare(found)
        return
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


def compare(found: Run) -> None:
    """Print each recorded score, the score of the float16 weights, and the recorded deviation, if any."""
    before = found.flat(SCORES)
    after = flatten(scores_of_packed())
    print(f"{'score':44} {'float32':>10} {'float16':>10} {'deviation':>10}")
    for path, value in before.items():
        if ".samples." in f".{path}" and isinstance(value, int | float) and not path.endswith(("_deviation", "_error")):
            spread = before.get(f"{path}_deviation", before.get(f"{path}_error", ""))
            print(f"{path:44} {value:10.5g} {after[path]:10.5g} {spread:>10}")


def scores_of_packed() -> dict[str, object]:
    """Sample the population with the float16 weights, filter it, and score it, as the stages do."""
    params = load_params(SampleParams, "sample.population")
    runtime = start()
    loaded = load_pretrained(NAME, runtime.device)
    card, numbers = loaded.card, range(params.count)
    classes = wanted_classes(card, params)
    parts = [images for _, images in sample_images(loaded, params, params.seed, numbers, runtime)]
    images = torch.cat(parts).unsqueeze(1) if card.data.shape[0] == 1 else torch.cat(parts).permute(0, 3, 1, 2)
    empty = torch.empty(0, *images.shape)
    population = {"images": images, "x_t": empty, "pred_x_start": empty}
    if card.model.class_conditional:
        population["labels"] = sample_labels(card, params, params.seed, numbers)
    judge, least = load_classifier(Path(CLASSIFIER.format("a"))), load_params(FilterParams, "filter")
    kept, _ = filtered(population, judge, classes, least, runtime)
    test, train = (load_split(PROCESSED / f"{name}.safetensors").of(classes) for name in ("test", "train"))
    files = {name: Path(CLASSIFIER.format(name)) for name in NAMES}
    judged = (kept["images"], kept.get("labels")), test, train, classes, files
    return evaluate(*judged, load_params(EvaluateParams, "evaluate"), runtime)[0]


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the scores of the float16 weights instead")
    return parser.parse_args()


if __name__ == "__main__":
    run(partial(main, **vars(parsed())))
