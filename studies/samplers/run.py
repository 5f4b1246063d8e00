"""Score samplers of the trained and distilled models against their evaluations, in studies/samplers/.

    python -m studies.samplers.run --evaluations 10 20 --sampler dpmpp_2m --guidance none "autoguidance 1.3"
    python -m studies.samplers.run --evaluations 20 --sampler dpmpp_2m --distilled 4 2 1 --pictures

Every row is saved at once, and rows that studies/samplers/scores.csv has are not computed again. Classifier a, which
the plot shows, and judge a of the two-sample test select samplers. The distances on pixels select nothing.
"""

import argparse
import hashlib
import inspect
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import torch

from ddpm.compute.device import Runtime, start
from ddpm.denoiser import Denoiser
from ddpm.model import LoadedModel, load_model
from ddpm.pictures.figures import to_png
from ddpm.sample import sample_batch
from ddpm.sampling.params import SamplerParams
from ddpm.schedule import NoiseSchedule
from exact_stages.console import run
from exact_stages.files import write_whole
from studies.arguments import at_least, parser
from studies.scoring import MODELS, Scorer, picture_rows, sampled
from studies.table import Table
from studies.trainings import population_sampler

MODEL = MODELS / "ddpm.safetensors"
DECIDING = (SamplerParams, sample_batch, Denoiser, NoiseSchedule)  # the files of these decide the images
CODE = [Path(name) for name in sorted({inspect.getfile(each) for each in DECIDING})]
OUT = Path("studies/samplers")
NOISES = {
    "ddpm": ["variance posterior", "variance beta"],
    "ddim": ["eta 0.0", "eta 1.0"],
    "dpmpp_2m": ["eta 0.0", "eta 1.0"],
}
OWN = "own"  # of a distilled model
SPACINGS = ("trailing", "cubic", "log_snr")
KEY = ["files_sha256", "sampler", "noise", "spacing", "clip", "evaluations", "guidance", "count"]


class Setting(NamedTuple):
    """The settings of a sampler, as in the table."""

    sampler: str
    noise: str
    spacing: str
    clip: bool
    evaluations: int
    guidance: str = "none"

    def params(self) -> SamplerParams:
        """Return the params of this project's samplers."""
        key, value = self.noise.split()
        spacing = None if self.spacing == OWN else self.spacing
        guide, _, scale = self.guidance.partition(" ")
        return population_sampler(
            sampler=self.sampler,
            steps=self.evaluations,
            spacing=spacing,
            clip=self.clip,
            guidance=float(scale or 1),
            guide=guide if scale else "autoguidance",
            classes="all",
            **{"variance": "posterior", "eta": 0.0, key: float(value) if key == "eta" else value},
        )


REAL = [Setting("real test images", f"subset {index}", "", True, 0) for index in range(2)]  # random subsets
PICTURED = [
    Setting("ddpm", "variance posterior", "trailing", True, 1000),
    *(Setting("dpmpp_2m", "eta 1.0", "trailing", True, steps, "autoguidance 1.3") for steps in (20, 10)),
    *(Setting("dpmpp_2m", "eta 1.0", "trailing", True, steps) for steps in (20, 10, 6, 4, 2)),
]
COLUMNS = 20


def main() -> None:
    """Sample and score the missing settings; then plot everything that the table has."""
    args = arguments()
    runtime = start()
    loaded = load_model(MODEL, runtime.device)
    scorer = Scorer(runtime, loaded.card.classes)
    table = Table(OUT / "scores.csv")
    models = {
        **dict.fromkeys([*REAL, *settings(args)], MODEL),
        **{ours(steps): distilled(steps) for steps in args.distilled},
    }
    for setting, model in models.items():
        files = sha256(model, *scorer.paths.values(), *CODE)
        key = dict(zip(KEY, [files, *setting, args.count], strict=True))
        if table.has(key):
            continue
        began = time.perf_counter()
        if setting in REAL:
            images, labels = scorer.real(setting.noise, args.count)
        else:
            images, labels = sampled(load_model(model, runtime.device), setting.params(), args.count, runtime)
        cost = {"seconds": round(time.perf_counter() - began, 1), "threads": torch.get_num_threads()}
        row = key | scorer.scores(images, labels) | cost
        table.add(row)
        print(*setting, f"frechet a {row['frechet_a']}, two-sample {row.get('two_sample_a', '-')}, {row['seconds']} s")
    rows = pd.read_csv(table.path)
    current = {sha256(model, *scorer.paths.values(), *CODE) for model in models.values()}
    write_whole(OUT / "frechet.png", plot(rows[rows["files_sha256"].isin(current)], args.count))
    if args.pictures:
        write_whole(OUT / "pictures.png", pictures(loaded, args.distilled, runtime))


def settings(args: argparse.Namespace) -> Iterator[Setting]:
    """Yield every combination that the command line names."""
    each = itertools.product(args.evaluations, args.sampler, args.spacing, args.clip, args.guidance)
    for steps, sampler, spacing, clip, guidance in each:
        for noise in NOISES[sampler]:
            if noise in args.noise:
                yield Setting(sampler, noise, spacing, clip, steps, guidance)


def ours(steps: int) -> Setting:
    """Return how a model that is distilled to `steps` evaluations samples."""
    return Setting("ddpm", "variance posterior", OWN, True, steps)


def distilled(steps: int) -> Path:
    """Return the file of a distilled model."""
    return MODELS / f"distilled-{steps}.safetensors"


def sha256(*paths: Path) -> str:
    """Hash the contents of these files."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def plot(rows: pd.DataFrame, count: int) -> bytes:
    """Plot Frechet distance and two-sample accuracy against evaluations: a line for each sampler that clips."""
    shown = rows[(rows["count"] == count) & (rows["evaluations"] > 0) & (rows["clip"].astype(str) == "True")]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained", sharex=True)
    for (spacing, sampler, noise, guidance), line in shown.groupby(["spacing", "sampler", "noise", "guidance"]):
        ordered = line.sort_values("evaluations")
        label = "distilled" if spacing == OWN else f"{sampler}, {noise}, {spacing}, guide: {guidance}"
        left.plot(ordered["evaluations"], ordered["frechet_a"], marker="o", label=label)
        right.plot(ordered["evaluations"], ordered["two_sample_a"], marker="o", label=label)
    left.set(xscale="log", yscale="log", ylabel="Frechet distance (classifier a)", title=f"{count} images each")
    right.set(ylim=(0.45, 1), ylabel="accuracy of the two-sample test (judge a)", title="0.5 is chance")
    left.set_xticks(ticks := sorted(shown["evaluations"].unique()), list(map(str, ticks)))
    left.set_yticks(ticks := [0.1, 0.2, 0.5, 1, 2, 5], list(map(str, ticks)))
    for axes in (left, right):
        axes.set_xlabel("evaluations of the network for each image")
        axes.minorticks_off()
        axes.tick_params("x", labelsize=7)
    figure.legend(*left.get_legend_handles_labels(), fontsize="small", loc="outside lower center", ncols=2)
    return to_png(figure)


def pictures(loaded: LoadedModel, few: Sequence[int], runtime: Runtime) -> bytes:
    """Draw a row of images for each of PICTURED and for the distilled models, all from the same x_T."""
    own = [(ours(steps), load_model(distilled(steps), runtime.device)) for steps in few]
    pictured = [*((setting, loaded) for setting in PICTURED), *own]
    rows = {}
    for setting, model in pictured:
        name = "distilled" if setting.spacing == OWN else setting.sampler
        title = f"{name}, {setting.guidance}\n{setting.evaluations}"
        rows[title], _ = sampled(model, setting.params(), COLUMNS, runtime)
    return to_png(picture_rows(rows))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__doc__)
    kinds = sorted(set().union(*NOISES.values()))
    options.add_argument("--count", type=at_least(2), default=2000, help="images for each setting")
    options.add_argument("--evaluations", type=at_least(1), nargs="+", default=[5, 10, 20, 50, 100])
    options.add_argument("--sampler", choices=NOISES, nargs="+", default=[*NOISES])
    options.add_argument("--spacing", choices=SPACINGS, nargs="+", default=SPACINGS[:2])
    options.add_argument("--noise", choices=kinds, nargs="+", default=kinds, help="share or variance of the noise")
    options.add_argument("--guidance", nargs="+", default=["none"], help='none, or such as "autoguidance 1.3"')
    options.add_argument(
        "--distilled", type=at_least(1), nargs="*", default=[], help="also distilled models with these evaluations"
    )
    options.add_argument("--unclipped", dest="clip", action="store_const", const=[True, False], default=[True])
    options.add_argument("--pictures", action="store_true", help="also draw pictures.png there")
    return options.parse_args()


if __name__ == "__main__":
    run(main)
