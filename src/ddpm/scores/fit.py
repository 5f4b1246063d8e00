"""Train the small classifier that supplies features to the scores."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.diffusion.randomness import generator
from ddpm.images.card import DataCard
from ddpm.images.splits import Split, SplitFile, even_batch, to_float
from ddpm.processes.device import Runtime, to_device
from ddpm.processes.workers import add_progress, map_shards
from ddpm.scores.classifier import FLIPS, Classifier, Recipe, held_out
from exact_stages.console import UserError, progress


def training_images(split_file: SplitFile, recipe: Recipe) -> Split:
    """Return the images that are not held out; of more than the training is long, a random subset."""
    rows = (~held_out(split_file)).nonzero().flatten()
    if len(rows) > recipe.images_seen:
        rows = rows[torch.randperm(len(rows), generator=generator(recipe.seed, "images"))[: recipe.images_seen]]
    return split_file.split.take(rows)


def fit_classifiers(
    name: str, trainings: Sequence[tuple[Split, Recipe]], data: DataCard, runtime: Runtime
) -> list[Classifier]:
    """Train new classifiers side by side, under a progress bar called `name`; see `train_classifier`.

    BatchNorm needs whole batches, so one process trains a classifier.

    Raises:
        UserError: a loss is not finite.
    """

    def fitted(index: int) -> dict[str, Tensor]:
        return fit_classifier(name, *trainings[index], data, runtime).cpu().state_dict()

    total = sum(total_steps(recipe, len(images.labels)) for images, recipe in trainings)
    found = []
    with progress(desc=name, total=total, unit="step") as bar:
        for (_, recipe), weights in zip(trainings, map_shards(fitted, range(len(trainings)), bar.update), strict=True):
            found.append(Classifier(recipe, data))
            found[-1].load_state_dict(weights)
    return found


def fit_classifier(name: str, train: Split, recipe: Recipe, data: DataCard, runtime: Runtime) -> Classifier:
    """Train a new classifier; each step is a `add_progress`.

    Raises:
        UserError: the loss is not finite; the message begins with `name`.
    """
    torch.manual_seed(recipe.seed)
    model = Classifier(recipe, data)
    for loss in train_classifier(model, train, runtime):
        add_progress(1)
    if not loss.isfinite():  # of the last step: weights that are not finite stay so
        raise UserError(f"{name}: the loss is {float(loss)}; check the images, and train it again")
    return model


def train_classifier(model: Classifier, train: Split, runtime: Runtime) -> Iterator[Tensor]:
    """Train in place with one cycle of the learning rate; yield the loss of each step, (), on the device.

    Each batch is shifted by up to `shift` pixels, so that features do not depend on exact positions. With a
    single class, the network learns to predict how each image is flipped.
    """
    recipe = model.recipe
    to_device(model, runtime.device).train()
    background = background_of(train.images).to(runtime.device)
    train = train.to(runtime.device)
    count = len(train.images)
    size = even_batch(count, recipe.batch_size)
    steps = epoch_steps(recipe, count)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01)
    # With 0.2, a cycle of five steps would divide zero by zero.
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=total_steps(recipe, count), pct_start=0.21
    )
    for epoch in range(recipe.epochs_of(count)):
        rng = generator(recipe.seed, "classifier", epoch)
        order = torch.randperm(count, generator=rng)[: steps * size].to(train.images.device)
        for batch in order.split(size):
            images, y = train.batch(batch, runtime.device)
            x = to_float(images)
            dx, dy = torch.randint(-recipe.shift, recipe.shift + 1, (2,), generator=rng).tolist()
            if not model.knows_classes:
                y = torch.randint(FLIPS, (size,), generator=rng).to(runtime.device)
                x = flipped(x, y)
            with runtime.of(images).autocast():
                loss = F.cross_entropy(model(shifted(x, dx, dy, background)), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            cycle.step()
            yield loss.detach()
    model.eval()


def total_steps(recipe: Recipe, count: int) -> int:
    """Return the number of steps for `count` images."""
    return recipe.epochs_of(count) * epoch_steps(recipe, count)


def epoch_steps(recipe: Recipe, count: int) -> int:
    """Return the number of steps of an epoch: the short last batch is dropped, and a shorter training ends earlier."""
    return max(1, min(count, recipe.images_seen) // even_batch(count, recipe.batch_size))


def flipped(images: Tensor, flips: Tensor) -> Tensor:
    """Flip images (B, C, H, W) by their flags, (B,): left-right (bit 1), upside down (bit 2), both or neither."""
    across, down = ((flips & bit).bool().view(-1, 1, 1, 1) for bit in (1, 2))
    images = torch.where(across, images.flip(3), images)
    return torch.where(down, images.flip(2), images)


def background_of(images: Tensor) -> Tensor:
    """Return the median of the edge pixels of uint8 images (N, C, H, W) in [-1, 1], as `(1, C, 1, 1)`."""
    edges = torch.cat([images[:, :, [0, -1]].flatten(2), images[..., [0, -1]].flatten(2)], dim=2)
    return to_float(edges.transpose(0, 1).flatten(1).median(dim=1).values).view(1, -1, 1, 1)


def shifted(images: Tensor, dx: int, dy: int, background: Tensor) -> Tensor:
    """Shift images (B, C, H, W) left by dx and up by dy pixels; fill with the background (1, C, 1, 1)."""
    height, width = images.shape[2:]
    margin = max(abs(dx), abs(dy))
    inside = F.pad(torch.ones_like(images[:1, :1]), (margin,) * 4)
    padded = torch.where(inside.bool(), F.pad(images, (margin,) * 4), background)
    return padded[..., margin + dy : margin + dy + height, margin + dx : margin + dx + width]
