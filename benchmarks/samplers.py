"""Score samplers of the trained model against the evaluations that they take, into docs/samplers/.

    python -m benchmarks.samplers --count 2000 --evaluations 10 20 --sampler dpmpp_2m ddim

Every row is kept as soon as it is there; what docs/samplers/scores.csv already has is not drawn again. Samplers are
chosen by classifier a, which the plot shows.
"""

import argparse
import hashlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor

import stages  # noqa: F401  (puts the library beside dvc.yaml on the path)
from ddpm.checkpoint import LoadedModel, load_model
from ddpm.classifier import NAMES, features_and_logits, load_classifier
from ddpm.console import run
from ddpm.device import Runtime, start
from ddpm.figures import to_png
from ddpm.files import write_whole
from ddpm.generate import at_least, draw_images
from ddpm.images import to_float
from ddpm.samplers import SamplerParams
from ddpm.scores import frechet_distance
from ddpm.splits import load_split

MODELS = Path("models")
PROCESSED = Path("data/processed")
OUT = Path("docs/samplers")
SEED = 2  # neither the gallery's nor the population's
SAMPLERS = ("ddpm", "ddim", "dpmpp_2m")
SPACINGS = ("trailing", "log_snr", "linspace", "leading")
SETTING = ["files_sha256", "sampler", "noise", "spacing", "clip", "evaluations", "count"]


def main() -> None:
    """Draw and score what is asked for and not yet there; then draw the plot of all that is there."""
    args = arguments()
    runtime = start()
    loaded = load_model(MODELS / "ddpm.safetensors", runtime.device)
    judge = Judge(loaded.card.classes, runtime)
    table = OUT / "scores.csv"
    rows = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=SETTING)
    for setting, params in [(["real test images", "", "", "", 0], None), *settings(args)]:
        key = [judge.files_sha256, *setting, args.count]
        if (rows[SETTING].fillna("").astype(str) == [str(each) for each in key]).all(axis=1).any():
            continue
        began = time.perf_counter()
        images = draw(loaded, params, args.count, runtime) if params else judge.test[: args.count]
        cost = {"seconds": round(time.perf_counter() - began, 1), "threads": torch.get_num_threads()}
        row = dict(zip(SETTING, key, strict=True)) | judge.frechet(images) | cost
        rows = pd.concat([rows, pd.DataFrame([row])])
        write_whole(table, rows.to_csv(index=False).encode())
        print(*setting, f"frechet a {row['frechet_a']:.3f}, {row['seconds']} s")
    write_whole(OUT / "frechet.png", plot(rows[rows["files_sha256"] == judge.files_sha256], args.count))


def settings(args: argparse.Namespace) -> Iterator[tuple[list[Any], SamplerParams]]:
    """Every combination that the command line names, as it stands in the table and as params."""
    for steps, sampler, spacing, clip in itertools.product(args.evaluations, args.sampler, args.spacing, args.clip):
        for key, value in [("variance", "posterior"), ("variance", "beta"), ("eta", 0.0), ("eta", 1.0)]:
            if (sampler == "ddpm") == (key == "variance"):
                chosen = {"sampler": sampler, "steps": steps, "spacing": spacing, "clip": clip, key: value}
                params = SamplerParams.model_validate({"variance": "posterior", "eta": 0.0, "classes": "all"} | chosen)
                yield [sampler, f"{key} {value}", spacing, clip, steps], params


def draw(loaded: LoadedModel, params: SamplerParams, count: int, runtime: Runtime) -> Tensor:
    """Images as they would be written: rounded to 256 values, in [-1, 1]."""
    drawn = [images for _, images in draw_images(loaded, params, SEED, range(count), runtime)]
    return to_float(torch.cat(drawn).unsqueeze(1))


class Judge:
    """The two classifiers, and what they see in the training images."""

    def __init__(self, classes: tuple[int, ...], runtime: Runtime) -> None:
        self.runtime = runtime
        paths = [MODELS / "ddpm.safetensors", *(MODELS / f"classifier-{name}.safetensors" for name in NAMES)]
        self.files_sha256 = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
        self.classifiers = dict(zip(NAMES, map(load_classifier, paths[1:]), strict=True))
        train, self.test = (
            load_split(PROCESSED / f"{split}.safetensors", classes).images for split in ("train", "test")
        )
        self.train = {name: self._features(name, train) for name in NAMES}

    def frechet(self, images: Tensor) -> dict[str, float]:
        """Distance from the training images, on the features of each classifier."""
        return {
            f"frechet_{name}": round(frechet_distance(self.train[name], self._features(name, images)), 4)
            for name in NAMES
        }

    def _features(self, name: str, images: Tensor) -> Tensor:
        return features_and_logits(self.classifiers[name], images, self.runtime.device)[0]


def plot(rows: pd.DataFrame, count: int) -> bytes:
    """Frechet distance against evaluations, a line for each sampler."""
    rows = rows[(rows["count"] == count) & (rows["evaluations"] > 0)]
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for (sampler, noise, spacing, clip), line in rows.groupby(["sampler", "noise", "spacing", "clip"]):
        ordered = line.sort_values("evaluations")
        label = f"{sampler}, {noise}, {spacing}" + ("" if str(clip) == "True" else ", unclipped")
        axes.plot(ordered["evaluations"], ordered["frechet_a"], marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="evaluations of the network for each image")
    axes.set(ylabel="Frechet distance (classifier a)", title=f"{count} images each")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    axes.legend(fontsize="small")
    return to_png(figure)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=at_least(2), default=2000, help="images for each setting")
    parser.add_argument("--evaluations", type=at_least(1), nargs="+", default=[5, 10, 20, 50, 100])
    parser.add_argument("--sampler", choices=SAMPLERS, nargs="+", default=SAMPLERS)
    parser.add_argument("--spacing", choices=SPACINGS, nargs="+", default=SPACINGS[:2])
    parser.add_argument("--unclipped", dest="clip", action="store_const", const=[True, False], default=[True])
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
