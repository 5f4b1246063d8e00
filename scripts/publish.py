"""Write what README, docs and the package show of runs.

    python -m scripts.publish scores [RUN ...]   print the scores of runs; of several, their means and deviations
    python -m scripts.publish pages              fill the tables of README.md and docs/results.md; the run is on MNIST
    python -m scripts.publish picture            draw README's picture, of an up-to-date run; `make repro` makes it
    python -m scripts.publish pretrained         pack the model of an up-to-date run for the package; commit both files

RUN is a record such as results/fashion, a revision or an experiment; by default the workspace. It must be up to date.
Runs that are averaged have the same images, and the same version of the scores.
"""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from ddpm.images.arrays import load_arrays, save_arrays
from ddpm.images.splits import Samples, load_samples
from ddpm.pictures.figures import image_gif, tile
from ddpm.processes.device import start
from ddpm.scores.classifier import load_classifier
from ddpm.scores.filtering import recognise
from exact_stages.console import UserError, run
from exact_stages.files import sha256, write_json, write_whole
from scripts.runs import TRAINED, Run, open_run
from scripts.tables import MEASURES, ROWS, averaged, cell, numbers, scores

README, RESULTS, DEFINED = Path("README.md"), Path("docs/results.md"), "reference/scores.md"
PICTURE = Path("docs/pictures/denoising.gif")
FILTER = Path("models/classifier-a.safetensors")
MNIST, NAME, PACKED = "data/mnist", "mnist", Path("src/ddpm/pretrained")
# Scores that pages show: the entry in docs/reference/scores.md, and the better direction.
SHOWN = {
    "images": ("scores", ""),
    "Frechet distance, classifier b": ("frechet-distance", "lower"),
    "excess, classifier b": ("frechet-distance", "0"),
    "conditional accuracy": ("conditional-accuracy", "higher"),
    "near copies": ("near-copies", "that of real images"),
    "specks": ("specks", "that of real images"),
    "C2ST accuracy at 256, 8, 2 levels": ("c2st-accuracy", "0.5"),
    "classification accuracy score": ("classification-accuracy-score", "higher"),
    "Frechet distance, pixels": ("frechet-distance", "lower"),
    "precision, recall": ("precision-and-recall", "higher"),
    "bits per dimension of test, of training images": ("bits-per-dimension", "lower"),
    "kept by the filter": ("kept-by-the-filter", "higher"),
}
COMPARED = [  # what runs that are averaged have in common: the keys of a file
    ("data set", "metrics/preprocess/summary.json", ["train", "test"]),
    ("version of the scores", "metrics/evaluate/scores.json", ["version"]),
]
README_HAS, VERSION = [*SHOWN][:7], "scores.version"  # of runs with other versions the scores do not compare
SEEDS = ("results/seed-2", "results/seed-3")  # the default with other seeds of training
CONFIGURATIONS = {  # folder and command
    "default": ("", "DDPM_PRECISION=portable make repro"),
    "without classes": ("results/unlabelled", "make unlabelled"),
    "plain DDPM": ("results/plain_ddpm", "make plain"),
    "distilled, 4 evaluations": ("results/distilled-4", "make distilled STEPS=4"),
    "distilled, 2 evaluations": ("results/distilled-2", "make distilled STEPS=2"),
    "distilled, 1 evaluation": ("results/distilled-1", "make distilled STEPS=1"),
    "Fashion-MNIST": ("results/fashion", "make fashion"),
}


def print_scores(*names: str) -> None:
    """Print a row for each measure: the mean of the runs, for each of ROWS.

    Raises:
        UserError: a run is not up to date, or the runs have other images or other versions of the scores.
    """
    mean = mean_of([open_run(name) for name in names or [""]])
    rows = scores((mean, row) for row in ROWS)
    print(table([["", *ROWS.values()], *([name, *cells] for name, cells in rows.items())]))


def mean_of(runs: Sequence[Run]) -> dict[str, float]:
    """Return the mean of each number, and its deviation; raise UserError if runs do not compare."""
    for what, path, keys in COMPARED:
        found = [{key: run.mapping(path).get(key) for key in keys} for run in runs]
        if other := [run.name for run, each in zip(runs, found, strict=True) if each != found[0]]:
            raise UserError(f"{other[0]}: has another {what} than {runs[0].name}; average runs with the same")
    return averaged([numbers(each) for each in runs])


def write_pages() -> None:
    """Fill the tables of the pages.

    Raises:
        UserError: the workspace is not up to date, or of other images than MNIST.
    """
    images = open_run("").flat("params.yaml").get("data.set")
    if images != MNIST:
        raise UserError(f"data.set: is {images}, but the tables are of {MNIST}; set that, and run dvc repro")
    for page in (README, RESULTS):
        write_whole(page, filled(page.read_text()).encode())


def filled(text: str) -> str:
    """Replace the parts of a page between `<!-- from NAME -->` and `<!-- end -->`, by the committed metrics."""
    files = [Path("params.yaml"), *Path("metrics").rglob("*.json")]
    workspace = Run("", {path.as_posix(): path.read_bytes() for path in files})
    runs = {name: open_run(folder) if folder else workspace for name, (folder, _) in CONFIGURATIONS.items()}
    found = {name: numbers(each) for name, each in runs.items()}
    version = found["default"].get(VERSION)
    compared = {name: values for name, values in found.items() if values.get(VERSION) == version}
    parts = {
        "metrics": set_table([workspace, *map(open_run, SEEDS)]),
        "scores": score_table(compared),
        "results": configuration_table(found),
    }

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{parts[match[2]]}\n\n<!-- end -->"

    return re.sub(r"(<!-- from (\w+) -->).*?<!-- end -->", part, text, flags=re.DOTALL)


def set_table(runs: Sequence[Run]) -> str:
    """Return a row for the samples of each run and their mean, and for each other of ROWS; scores link to definitions.

    Real images are those of the first run.
    """
    heads = [f"[{name}](docs/{DEFINED}#{SHOWN[name][0]})" for name in README_HAS]
    first, mean = numbers(runs[0]), mean_of(runs)
    named = [(f"samples, seed {run.flat('params.yaml').get('train.seed')}", numbers(run), "samples") for run in runs]
    named += [("their mean", mean, "samples"), ("before the filter, mean", mean, "unfiltered")]
    named += [(ROWS[row], first, row) for row in ROWS if row not in ("samples", "unfiltered")]
    cells = [[name, *(cell(found, row, MEASURES[each]) for each in README_HAS)] for name, found, row in named]
    return table([["", *heads], *(each for each in cells if any(each[1:]))])


def score_table(runs: Mapping[str, dict[str, float]]) -> str:
    """Return a row for each score, linked to its definition: of sets of the first run, and of the samples of each."""
    first, *_ = runs.values()
    others = ["test", "real", "unfiltered"]
    found = scores([*((first, row) for row in others), *((values, "samples") for values in runs.values())])
    rows = [["score", "better", *(ROWS[row] for row in others), *runs]]
    for name, (entry, better) in SHOWN.items():
        rows.append([f"[{name}]({DEFINED}#{entry})", better, *found.get(name, [""] * (len(runs) + len(others)))])
    return table(rows)


def configuration_table(found: Mapping[str, dict[str, float]]) -> str:
    """Return the other configurations, each next to test images of its own set."""
    heads = ("configuration", "command", "version of the scores", "Frechet distance, b", "conditional accuracy")
    rows = [[*heads[:4], "of test images", heads[4], "of test images"]]
    class_shown = MEASURES["conditional accuracy"]
    for name, (folder, command) in CONFIGURATIONS.items():
        distance, real = (found[name].get(f"scores.b.{row}.frechet") for row in ("samples", "test"))
        distances = [f"{each:.3f}" if each else "" for each in (distance, real)]
        shares = [cell(found[name], row, class_shown) for row in ("samples", "test")]
        linked = f"[{name}](../{folder}/params.yaml)" if folder else name
        version = f"{found[name].get(VERSION, 1):.0f}"
        rows.append([linked, f"`{command}`", version, *distances, *shares])
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table; the first is the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]]).replace(" +- ", "\u00a0±\u00a0")


def draw_picture() -> None:
    """Draw the reverse process of samples."""
    open_run("")  # or it is not up to date
    write_whole(PICTURE, denoising(load_samples(Path("data/samples/preview.safetensors"))))


def denoising(preview: Samples) -> bytes:
    """Animate the clearest sample of each class: what each step leaves, and its estimate of x_0 below."""
    clear, labels = recognise(load_classifier(FILTER), preview.images, preview.labels, preview.classes, start())
    shown = [int((clear * (labels == label)).argmax()) for label in labels.unique()]
    pairs = zip(preview.x_t[:, shown], preview.pred_x_start[:, shown], strict=True)
    coarse = [torch.cat(pair) // 16 * 17 for pair in pairs]  # 16 levels, for a small file
    return image_gif([tile(each, len(shown)) for each in coarse], scale=3, milliseconds=400, hold=3000)


def pack_pretrained() -> None:
    """Make the model that comes with the package, in float16, and a file that names commit, date and scores.

    Raises:
        UserError: the model or its scores are not up to date, or files are not committed.
    """
    found = open_run("")
    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ".", f":!{PACKED}"]).returncode:
        raise UserError(f"git: files have changed; commit them first, since {NAME}.json names the commit")
    weights = PACKED / f"{NAME}.safetensors"
    pack(Path(TRAINED), weights)
    facts = {
        "sha256": sha256(weights),
        "made_from_md5": found.hashes[TRAINED],
        "commit": found.commit,
        "date": datetime.now(UTC).date().isoformat(),
        "torch": found.mapping("metrics/train/environment.json")["torch"],
        "scores": found.mapping("metrics/evaluate/scores.json"),
    }
    write_json(PACKED / f"{NAME}.json", facts)


def pack(model: Path, packed: Path) -> None:
    """Write a model file again with float16 weights; the model card and other metadata stay."""
    weights, metadata = load_arrays(model)
    halved = {name: each.half() if each.is_floating_point() else each for name, each in weights.items()}
    save_arrays(packed, halved, metadata)


COMMANDS = {"scores": print_scores, "pages": write_pages, "picture": draw_picture, "pretrained": pack_pretrained}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS or (len(sys.argv) > 2 and sys.argv[1] != "scores"):
        sys.exit(__doc__)
    run(partial(COMMANDS[sys.argv[1]], *sys.argv[2:]))
