"""Score samplers of the trained and distilled models against their evaluations, in studies/samplers/.

    python -m benchmarks.samplers --count 2000 --evaluations 10 20 --sampler dpmpp_2m --guidance none "autoguidance 1.3"
    python -m benchmarks.samplers --evaluations 20 --sampler dpmpp_2m --distilled 4 2 1 --pictures

Every row is saved at once, and rows that studies/samplers/scores.csv has are not computed again. Classifier a, which
the plot shows, and judge a of the two-sample test select samplers. The distances on pixels select nothing.
"""

import argparse
import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import torch
from diffusers import HeunDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from benchmarks.arguments import at_least
from benchmarks.scoring import MODELS, SEED, Scorer, channels_first, picture_rows
from ddpm.cli.generate import sample_images
from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import ImageNoise
from ddpm.schedule import ScheduleParams
from ddpm.images.splits import to_uint8
from ddpm.model import LoadedModel, load_model
from ddpm.pictures.figures import to_png
from ddpm.sample import batches, guided_denoiser, sample_batch_size, sample_labels
from ddpm.sample import SamplerParams
from exact_stages.console import run
from exact_stages.files import write_whole

MODEL = MODELS / "ddpm.safetensors"
CODE = [  # what decides the images, besides the model
    *(Path("src/ddpm/sampling", name) for name in ("samplers.py", "generation.py", "guidance.py")),
    *(Path("src/ddpm/diffusion", name) for name in ("denoiser.py", "schedule.py")),
]
OUT = Path("studies/samplers")
NOISES = {
    "ddpm": ["variance posterior", "variance beta"],
    "ddim": ["eta 0.0", "eta 1.0"],
    "dpmpp_2m": ["eta 0.0", "eta 1.0"],
}
OWN = "own"  # of a distilled model
INTERVAL = (-4.0, 2.0)
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
        timesteps = {"sampler": self.sampler, "steps": self.evaluations, "spacing": spacing, "clip": self.clip}
        noise = {"variance": "posterior", "eta": 0.0, key: float(value) if key == "eta" else value}
        guide, _, scale = self.guidance.partition(" ")
        guidance = {
            "guidance": float(scale or 1),
            "guide": guide if scale else "autoguidance",
            "guidance_interval": INTERVAL,
        }
        return SamplerParams.model_validate({**timesteps, **noise, **guidance, "classes": "all"})


def main() -> None:
    """Sample and score the missing settings; then plot everything that the table has."""
    args = arguments()
    runtime = start()
    loaded = load_model(MODEL, runtime.device)
    scorer = Scorer(runtime, loaded.card.classes)
    table = OUT / "scores.csv"
    rows = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=KEY)
    models = {
        **dict.fromkeys([*REAL, *settings(args)], MODEL),
        **{ours(steps): distilled(steps) for steps in args.distilled},
    }
    for setting, model in models.items():
        files = sha256(model, *scorer.paths.values(), *CODE)
        key = [files, *setting, args.count]
        if (rows[KEY].fillna("").astype(str) == [str(each) for each in key]).all(axis=1).any():
            continue
        began = time.perf_counter()
        if setting in REAL:
            images, labels = scorer.real(setting.noise, args.count)
        else:
            sampled = load_model(model, runtime.device)
            images = sample(sampled, setting, args.count, runtime)
            labels = sample_labels(sampled.card, setting.params(), SEED, range(args.count))
        cost = {"seconds": round(time.perf_counter() - began, 1), "threads": torch.get_num_threads()}
        row = dict(zip(KEY, key, strict=True)) | scorer.frechet(images) | scorer.others(images, labels)
        row |= ({} if setting in REAL else scorer.two_sample(images)) | cost
        rows = pd.concat([rows, pd.DataFrame([row])])
        write_whole(table, rows.to_csv(index=False).encode())
        print(
            *setting, f"frechet a {row['frechet_a']:.3f}, two-sample {row.get('two_sample_a', '-')}, {row['seconds']} s"
        )
    current = {sha256(model, *scorer.paths.values(), *CODE) for model in models.values()}
    write_whole(OUT / "frechet.png", plot(rows[rows["files_sha256"].isin(current)], args.count))
    write_whole(OUT / "tones.png", tones(loaded, scorer, runtime))
    if args.pictures:
        write_whole(OUT / "pictures.png", pictures(loaded, args.distilled, runtime))


def settings(args: argparse.Namespace) -> Iterator[Setting]:
    """Yield every combination that the command line names, except those that a solver of diffusers does not support."""
    each = itertools.product(args.evaluations, args.sampler, args.spacing, args.clip, args.guidance)
    for steps, sampler, spacing, clip, guidance in each:
        for noise in NOISES.get(sampler, ["eta 0.0"]):
            foreign = sampler in SCHEDULERS and (spacing != "trailing" or steps < 2 or guidance != "none")
            if noise in args.noise and not foreign:
                yield Setting(sampler, noise, spacing, clip, steps, guidance)


def ours(steps: int) -> Setting:
    """Return how a model that is distilled to `steps` evaluations samples."""
    return Setting("ddpm", "variance posterior", OWN, True, steps)


def distilled(steps: int) -> Path:
    """Return the file of a distilled model."""
    return MODELS / f"distilled-{steps}.safetensors"


def sample(loaded: LoadedModel, setting: Setting, count: int, runtime: Runtime) -> Tensor:
    """Sample images as they would be written, uint8 (count, C, H, W)."""
    if setting.sampler in SCHEDULERS:
        return torch.cat([*sample_by_diffusers(loaded, setting, range(count), runtime)])
    batches_of = sample_images(loaded, setting.params(), SEED, range(count), runtime)
    return channels_first(torch.cat([images for _, images in batches_of]))


def sample_by_diffusers(loaded: LoadedModel, setting: Setting, numbers: range, runtime: Runtime) -> Iterator[Tensor]:
    """Yield batches of images, uint8 (B, C, H, W), by a solver of diffusers, from the same x_T and labels as ours."""
    params = Setting("ddim", "eta 0.0", "trailing", True, 1).params()  # for the labels
    for indices in batches(numbers.start, len(numbers), sample_batch_size(loaded, runtime)):
        denoise = guided_denoiser(loaded, sample_labels(loaded.card, params, SEED, indices), params, runtime)
        alphas_cumprod = loaded.schedule.alphas_cumprod.tolist()
        scheduler = SCHEDULERS[setting.sampler](loaded.schedule.params, setting)
        x_t = ImageNoise(SEED, indices, loaded.card.data.shape, runtime.device)() * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            with torch.inference_mode():
                abar, scaled = alphas_cumprod[int(t)], scheduler.scale_model_input(x_t, t)
                pred_noise = (scaled - abar**0.5 * denoise(scaled, int(t))) / (1 - abar) ** 0.5
                x_t = scheduler.step(pred_noise, t, x_t).prev_sample
        yield to_uint8(x_t).cpu()


def unipc(schedule: ScheduleParams, setting: Setting) -> Any:
    """Build UniPC of second order (Zhao et al. 2023, arXiv:2302.04867)."""
    return scheduled(
        UniPCMultistepScheduler, schedule, setting, setting.evaluations, thresholding=setting.clip, sample_max_value=1.0
    )


def heun(schedule: ScheduleParams, setting: Setting) -> Any:
    """Build Heun's method (Karras et al. 2022, arXiv:2206.00364, algorithm 1): two evaluations a step, one at last."""
    return scheduled(HeunDiscreteScheduler, schedule, setting, setting.evaluations // 2, clip_sample=setting.clip)


def scheduled(kind: Any, schedule: ScheduleParams, setting: Setting, steps: int, **options: Any) -> Any:
    """Build a scheduler of diffusers for `steps` steps."""
    betas = {"beta_start": schedule.beta_start, "beta_end": schedule.beta_end, "beta_schedule": "linear"}
    spacing = {"num_train_timesteps": schedule.timesteps, "timestep_spacing": setting.spacing}
    scheduler = kind(**betas, **spacing, **options)
    scheduler.set_timesteps(steps)
    return scheduler


SCHEDULERS = {"unipc": unipc, "heun": heun}  # of diffusers, for comparison
REAL = [Setting("real test images", f"subset {index}", "", True, 0) for index in range(10)]  # random subsets
PICTURED = [
    Setting("ddpm", "variance posterior", "trailing", True, 1000),
    *(Setting("dpmpp_2m", "eta 1.0", "trailing", True, steps, "autoguidance 1.3") for steps in (20, 10)),
    *(Setting("dpmpp_2m", "eta 1.0", "trailing", True, steps) for steps in (20, 10, 6, 4, 2)),
]
COLUMNS = 20
ENDS = {  # by how the process ends
    "20 trailing,\nto t = 49": Setting("dpmpp_2m", "eta 1.0", "trailing", True, 20, "autoguidance 1.3"),
    "24 cubic,\nto t = 0": Setting("dpmpp_2m", "eta 1.0", "cubic", True, 24, "autoguidance 1.3"),
}
FAINT = 4  # levels that are stretched, so that a veil is visible


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
        rows[f"{name}, {setting.guidance}\n{setting.evaluations}"] = sample(model, setting, COLUMNS, runtime)
    return to_png(picture_rows(rows))


def tones(loaded: LoadedModel, scorer: Scorer, runtime: Runtime) -> bytes:
    """Draw four images of the same noise for each of ENDS, and real ones: plain, and with FAINT levels stretched."""
    rows = {title: sample(loaded, setting, 4, runtime) for title, setting in ENDS.items()}
    rows["real"] = scorer.real("tones", 4)[0]
    stretched = {title: images.clamp(max=FAINT).double() * 255 / FAINT for title, images in rows.items()}
    return to_png(picture_rows({title: torch.cat([rows[title], stretched[title].byte()]) for title in rows}))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = sorted(set().union(*NOISES.values()))
    parser.add_argument("--count", type=at_least(2), default=2000, help="images for each setting")
    parser.add_argument("--evaluations", type=at_least(1), nargs="+", default=[5, 10, 20, 50, 100])
    parser.add_argument("--sampler", choices=[*NOISES, *SCHEDULERS], nargs="+", default=[*NOISES])
    parser.add_argument("--spacing", choices=SPACINGS, nargs="+", default=SPACINGS[:2])
    parser.add_argument("--noise", choices=kinds, nargs="+", default=kinds, help="share or variance of the noise")
    parser.add_argument("--guidance", nargs="+", default=["none"], help='none, or such as "autoguidance 1.3"')
    parser.add_argument(
        "--distilled", type=at_least(1), nargs="*", default=[], help="also distilled models with these evaluations"
    )
    parser.add_argument("--unclipped", dest="clip", action="store_const", const=[True, False], default=[True])
    parser.add_argument("--pictures", action="store_true", help="also draw pictures.png there")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
