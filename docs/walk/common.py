"""Give the chapters images, a model and classifiers, or small stand-ins for them, and draw figures.

After a run of the pipeline, the chapters use its data/processed and models. In a fresh clone they use digits drawn with
fonts, and a small network trained on them, which is kept in build/walk.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]  # this library, even if another one is installed, and its stages

import matplotlib  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from IPython.display import Image  # noqa: E402
from matplotlib import style  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from myst_nb import glue  # noqa: E402
from PIL import Image as Picture  # noqa: E402
from PIL import ImageDraw, ImageFont  # noqa: E402
from torch import Tensor  # noqa: E402
from torchvision.transforms import InterpolationMode, v2  # noqa: E402

from ddpm.diffusion.model import LoadedModel, load_model  # noqa: E402
from ddpm.diffusion.training import Training, new_training  # noqa: E402
from ddpm.images.card import DataCard  # noqa: E402
from ddpm.images.splits import (  # noqa: E402
    Split,
    SplitFile,
    load_split,
    to_uint8,
)
from ddpm.images.starts import SCRATCH  # noqa: E402
from ddpm.params.card import ModelCard  # noqa: E402
from ddpm.params.distill import DistillParams  # noqa: E402
from ddpm.params.model import ModelParams  # noqa: E402
from ddpm.params.sample import SamplerParams, fitted  # noqa: E402
from ddpm.params.schedule import ScheduleParams  # noqa: E402
from ddpm.params.train import TrainParams  # noqa: E402
from ddpm.pictures.figures import image_png, image_table, tile, to_png  # noqa: E402
from ddpm.processes.device import start  # noqa: E402
from ddpm.scores.classifier import (  # noqa: E402
    Classifier,
    Recipe,
    load_classifier,
    save_classifier,
)
from ddpm.scores.fit import fit_classifier  # noqa: E402
from exact_stages.console import UserError  # noqa: E402
from exact_stages.files import read_yaml  # noqa: E402
from exact_stages.params import load_params, parse  # noqa: E402
from stages.distill import new_distillation, save  # noqa: E402
from studies.table import rows_of  # noqa: E402

runtime = start(alone=True)  # a notebook's kernel should not fork
PARAMS = ROOT / "params.yaml"
KEPT = ROOT / "build/walk"
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
DIGITS = DataCard(name="digits of fonts", shape=(1, 28, 28), classes=tuple("0123456789"))
SMALL = {"channels": (8, 16, 32), "bottleneck_blocks": 1}
SHORT = {"images_seen": 32_000, "ema_decay": 0.97, "warmup_steps": 20, "batch_size": 32, "fine_tune_from": SCRATCH}
REAL = (ROOT / "models/ddpm.safetensors").exists() and (ROOT / "data/processed/train.safetensors").exists()


def images(split: str = "train") -> SplitFile:
    """Load the preprocessed images of a split, train or test."""
    if REAL:
        return load_split(ROOT / f"data/processed/{split}.safetensors")
    drawn = _digits_of_fonts(4000 if split == "train" else 1000, ["train", "test"].index(split))
    count = len(drawn.images)
    return SplitFile(DIGITS, drawn, torch.arange(count), (100,) * len(DIGITS.classes))


def model() -> LoadedModel:
    """Load the trained model, or train a small one."""
    if REAL:
        return load_model(ROOT / "models/ddpm.safetensors", runtime.device)
    try:
        return load_model(KEPT / "small.safetensors", runtime.device)
    except UserError:  # it is absent, or another version of the library saved it
        training = small_training()
        for _ in training.run():
            pass
        training.save(KEPT / "small.safetensors")
        return load_model(KEPT / "small.safetensors", runtime.device)


def small_training(split_file: SplitFile | None = None, **changes: Any) -> Training:
    """Return a short training of a small network, before its first step; changes replace params of `train`."""
    schedule = load_params(ScheduleParams, "schedule", PARAMS)
    network = load_params(ModelParams, "model", PARAMS).model_copy(update=SMALL)
    recipe = load_params(TrainParams, "train", PARAMS).model_copy(update=SHORT | changes)
    return new_training(split_file or images(), schedule, network, recipe, runtime)


def distilled(evaluations: int = 4) -> LoadedModel:
    """Load the model distilled to this number of evaluations, or distil one briefly."""
    path = ROOT / f"models/distilled-{evaluations}.safetensors"
    if not (REAL and path.exists()):
        path = KEPT / f"distilled-{'real' if REAL else 'small'}-{evaluations}.safetensors"
    try:
        return load_model(path, runtime.device)
    except UserError:
        teacher, short = model(), {"images_seen": 3200, "batch_size": 32}
        recipe = load_params(DistillParams, "distill", PARAMS).model_copy(update=short)
        work = new_distillation(teacher, images().of(teacher.card.classes), evaluations, recipe, runtime)
        for _ in work.run():
            pass
        save(path, work, teacher)
        return load_model(path, runtime.device)


def classifier(name: str = "b") -> Classifier:
    """Load a classifier, a or b, or train a small one."""
    real = ROOT / f"models/classifier-{name}.safetensors"
    path = real if REAL and real.exists() else KEPT / "classifier.safetensors"
    try:
        return load_classifier(path)
    except UserError:
        recipe = Recipe(images_seen=12_000, channels=8)
        save_classifier(path, fit_classifier("classifier", images().split, recipe, images().card, runtime))
        return load_classifier(path)


def sampler(card: ModelCard, **changes: Any) -> SamplerParams:
    """Return the params of the set `scored` in params.yaml, with changes, fitted to a model."""
    section = read_yaml(PARAMS)["sample"]
    values = {**section, **section["scored"], **changes}
    known = {name: values[name] for name in SamplerParams.model_fields}
    return fitted(parse(SamplerParams, known, "sampler"), card)


def metrics(path: str) -> Any:
    """Read a csv or JSON file of the repository."""
    file = ROOT / path
    return pd.read_csv(file) if file.suffix == ".csv" else json.loads(file.read_text())


def of_study(name: str) -> pd.DataFrame:
    """Return the rows that the stages of a study have made."""
    return rows_of(ROOT / "studies" / name / "rows")[0]


def numbers(**values: float) -> None:
    """Make numbers available to the text of the page."""
    for name, value in values.items():
        glue(name, float(value), display=False)  # it cannot format NumPy's numbers


def table(pictures: Tensor, titles: Sequence[str] = (), title: str = "") -> Image:
    """Show images (rows, columns, C, H, W) in [-1, 1], in columns with titles."""
    return show(image_table(to_uint8(pictures), titles, title))


def grid(pictures: Tensor, columns: int, scale: int = 2) -> Image:
    """Show images (N, C, H, W), uint8 or in [-1, 1], row by row."""
    levels = pictures if pictures.dtype == torch.uint8 else to_uint8(pictures)
    return Image(image_png(tile(levels, columns), scale))


@style.context("default", after_reset=True)
def axes(*labels: tuple[str, str], height: float = 2.8) -> tuple[Figure, list[Axes]]:
    """Make a figure with axes side by side, given the labels (x, y) of each."""
    figure = Figure(figsize=(7.2, height), layout="constrained")
    made = figure.subplots(1, len(labels), squeeze=False)[0].tolist()
    for axis, (x_label, y_label) in zip(made, labels, strict=True):
        axis.set(xlabel=x_label, ylabel=y_label)
        axis.grid(alpha=0.3)
    return figure, made


def show(figure: Figure) -> Image:
    """Show a figure on the page."""
    return Image(to_png(figure))


def _digits_of_fonts(count: int, seed: int) -> Split:
    """Draw digits with a few fonts, each rotated, shifted, scaled and sheared at random."""
    faces = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono")
    fonts = [ImageFont.truetype(str(FONTS / f"{face}.ttf"), 22) for face in faces]
    drawn = []
    for font in fonts:
        for digit in DIGITS.classes:
            picture = Picture.new("L", DIGITS.shape[1:], 0)
            ImageDraw.Draw(picture).text((14, 14), digit, fill=255, font=font, anchor="mm")
            drawn.append(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(DIGITS.shape))
    chosen = torch.arange(count) % len(drawn)
    move = v2.RandomAffine(15, (0.07, 0.07), (0.85, 1.15), 10, interpolation=InterpolationMode.BILINEAR)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        moved, order = torch.stack([move(drawn[row]) for row in chosen.tolist()]), torch.randperm(count)
    return Split(moved[order], (chosen % len(DIGITS.classes))[order])


def rmse(one: Tensor, other: Tensor) -> float:
    """Return the root mean square of the differences."""
    return math.sqrt(float((one - other).square().mean()))
