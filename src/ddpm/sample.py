"""Sampling: algorithm 2 of Ho et al. 2020 (arXiv:2006.11239), with a choice of the reverse step, and guidance.

    1  x_T ~ N(0, I)                    p_sample_loop
    2  for t = T, ..., 1                p_sample_loop, over the timesteps of spaced_timesteps
    3    z ~ N(0, I), 0 in the last     p_sample_loop
    4    x_{t-1} = mean + sigma_t z     p_sample returns the mean (eqs. 7 and 11) and sigma_t^2
    6  return x_0                       x_prev of the last Step

ddpm is the ancestral sampler of that paper. ddim generalises it (Song et al. 2021, arXiv:2010.02502). dpmpp_2m is the
second-order multistep DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), of the ODE with eta 0, of the SDE with eta 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ddpm.compute.device import Runtime, start, to_device
from ddpm.compute.randomness import ImageNoise, generator
from ddpm.compute.workers import in_pieces, tick
from ddpm.compute.world import World
from ddpm.images.card import Classes, listed
from ddpm.images.splits import Samples, Split, to_uint8
from ddpm.model import Guide, LoadedModel, ModelCard
from ddpm.parallel.checkpoints import Checkpoints
from ddpm.schedule import NoiseSchedule, posterior, renewed_share
from ddpm.unet import NO_LABEL, UNet
from exact_stages.console import UserError, progress, shown
from exact_stages.params import Section, Sections, parse

CLASSIFIER_FREE_SCALE = 1.1  # more costs variety
START_SCALE = 1.5  # after a short training that began from another model; 2 is easier to tell (studies/small_sets)
FULL_SCALE, FULL_IMAGES = 1.3, 320_000  # best for the default training, and its images, counting repeats
GUIDED_BY = {"autoguidance": "guide_share", "classifier_free": "label_dropout"}  # the param of `train` that makes it
MOST_IMAGES, MOST_FRAMES = 10_000_000, 1_000_000
LEAST_BATCHES = 4  # of a set on a CPU, so that workers can share it
BAR: dict[str, Any] = {"unit": "eval", "unit_scale": True}
LogSNR = Annotated[float, Field(ge=-100, le=100)]
Denoise = Callable[[Tensor, int], Tensor]  # (x_t of (B, C, H, W), t) -> the estimate of x_0, like x_t
Noise = Callable[[], Tensor]  # returns new standard normal noise, shaped like x_t


class SharedParams(Sections):
    """Guidance, classes and variance, which gallery and population share; params.yaml explains each choice."""

    variance: Literal["posterior", "beta"] = "posterior"
    guidance: Annotated[float, Field(ge=0, le=1000)] | None = None
    guide: Guide = "autoguidance"
    guidance_interval: tuple[LogSNR, LogSNR] = (-4.0, 2.0)
    classes: Classes = ()

    @field_validator("guidance_interval")
    @classmethod
    def _ascending(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            raise ValueError("must be from, to in ascending order")
        return interval


class StepParams(Section):
    """The sampler and its timesteps; params.yaml explains each choice."""

    sampler: Literal["ddpm", "ddim", "dpmpp_2m"] = "dpmpp_2m"
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = 24
    spacing: Literal["trailing", "log_snr"] | None = None
    eta: Annotated[float, Field(ge=0, le=1)] = 1.0
    clip: bool = True


class SamplerParams(SharedParams, StepParams):
    """All that a sampler needs, with the defaults of the population; functions want them `fitted` to the model."""


class SetParams(StepParams):
    """The params of one set of samples: its sampler, the number of images, their seed, and the frames to keep."""

    count: Annotated[int, Field(ge=2, le=MOST_IMAGES)]
    keep_every: Annotated[int, Field(ge=0, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Step(NamedTuple):
    """One step of the reverse process: its t, the new `x_prev`, and the estimate of x_0."""

    t: int
    x_prev: Tensor
    pred_x_start: Tensor


def sample(loaded: LoadedModel, count: int, seed: int = 0, **params: Any) -> Split:
    """Sample images, uint8 (count, C, H, W), and their labels, (count,), on the fastest device of the machine.

    A CPU computes in this process, with one thread; the caller's number of threads is restored.

    All labels of a model that is not class-conditional are NO_LABEL.

    Args:
        loaded: from `load_model` or `load_pretrained`.
        params: fields of `SamplerParams`; the others have its defaults, a distilled model its own.

    Raises:
        UserError: params are wrong, or do not fit the model; the message names the param.
    """
    if count < 1:
        raise UserError(f"count: {count}; set 1 or more")
    threads = torch.get_num_threads()
    runtime = start(alone=True)
    try:
        for network in filter(None, (loaded.network, loaded.guide)):
            to_device(network, runtime.device)
        fitted_params = fitted(parse(SamplerParams, params, "sample"), loaded.card)
        images = [batch for _, batch in sample_images(loaded, fitted_params, seed, range(count), runtime, "sample")]
    finally:
        torch.set_num_threads(threads)
    told = loaded.card.model.class_conditional
    labels = sample_labels(loaded.card, fitted_params, seed, range(count)) if told else torch.full((count,), NO_LABEL)
    return Split(torch.cat(images), labels)


def sample_images(
    loaded: LoadedModel, params: SamplerParams, seed: int, numbers: range, runtime: Runtime, label: str = ""
) -> Iterator[tuple[range, Tensor]]:
    """Sample the images `numbers`, and yield each finished batch: its numbers and images, uint8 (B, C, H, W).

    The progress bar is called `label`; without a label there is none.
    """
    size = sample_batch_size(loaded, runtime)
    starts = numbers[::size]

    def sampled(start: int) -> Tensor:
        indices = _batch(numbers, start, size)
        for step in sample_batch(loaded, params, seed, indices, runtime):
            tick(len(indices))
        return to_uint8(step.x_prev).cpu()

    with progress(desc=label, total=len(visited(loaded, params)) * len(numbers), disable=not label, **BAR) as bar:
        for start, images in zip(starts, in_pieces(sampled, starts, bar.update), strict=True):
            yield _batch(numbers, start, size), images


def _batch(numbers: range, start: int, size: int) -> range:
    return range(start, min(start + size, numbers.stop))


def sample_batch_size(loaded: LoadedModel, runtime: Runtime) -> int:
    """Return how many images to sample in one batch on this runtime."""
    (channels, height, width), widths = loaded.card.data.shape, loaded.card.model.channels
    assert widths
    float32_bytes = 4 * height * width * (channels + 8 * widths[0])  # of eight tensors
    return runtime.sample_batch_size(height * width, float32_bytes)


@torch.inference_mode()
def sample_batch(
    loaded: LoadedModel, params: SamplerParams, seed: int, indices: Sequence[int], runtime: Runtime
) -> Iterator[Step]:
    """Sample the images `indices`, and yield the steps of the reverse process.

    Image i depends on (seed, i), not on the batch. The last `x_prev` is the images, `sample_labels` returns the labels.

    Raises:
        UserError: after the last step, an image is not finite.
    """
    noise = ImageNoise(seed, indices, loaded.card.data.shape, runtime.device)
    labels = sample_labels(loaded.card, params, seed, indices)
    denoise = guided_denoiser(loaded, labels, params, runtime)
    for step in p_sample_loop(denoise, loaded.schedule, params, noise, visited(loaded, params)):
        yield step
    if not (finite := step.x_prev.isfinite().flatten(1).all(1)).all():  # only here: it synchronises
        image = indices[int(finite.int().argmin())]
        raise UserError(f"image {image}: the model's predictions are not finite; fetch the model again, or retrain it")


def visited(loaded: LoadedModel, params: SamplerParams) -> Sequence[int]:
    """Return the timesteps at which a model is evaluated, descending."""
    return loaded.card.timesteps or spaced_timesteps(loaded.schedule, params.steps, params.spacing)


def spaced_timesteps(schedule: NoiseSchedule, steps: int | None, spacing: str | None) -> list[int]:
    """Choose `steps` of the T timesteps, at most all, descending; None takes all T.

    trailing: equal steps down from T-1.
    log_snr: equal steps of the log SNR, from T-1 to 0.
    """
    timesteps = schedule.timesteps
    if steps is None:
        return [*reversed(range(timesteps))]
    assert spacing, "fit the params first"
    if spacing == "trailing":
        return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]
    log_snr = schedule.alphas_cumprod.logit()
    grid = torch.linspace(float(log_snr[-1]), float(log_snr[0]), steps, dtype=log_snr.dtype)
    found, free = [], timesteps - 1
    for left, wanted in zip(reversed(range(steps)), grid, strict=True):
        nearest = int((log_snr - wanted).abs().argmin())
        found.append(max(min(nearest, free), left))  # each once; later steps still need `left` timesteps below
        free = found[-1] - 1
    return found


def p_sample_loop(
    denoise: Denoise, schedule: NoiseSchedule, params: SamplerParams, noise: Noise, timesteps: Sequence[int]
) -> Iterator[Step]:
    """Run the reverse process (Ho et al. 2020, algorithm 2) over descending timesteps; yield a `Step` for each.

    `denoise` is called once in a step; `noise` once for x_T, then once in every step that adds noise.
    """
    alphas_cumprod: list[float] = schedule.alphas_cumprod.tolist()
    x_t = noise()  # line 1: x_T ~ N(0, I)
    before: tuple[float, Tensor] | None = None
    for t, t_prev in zip(timesteps, [*timesteps[1:], None], strict=True):  # line 2
        pred_x_start = denoise(x_t, t)  # x_0 from eps_theta(x_t, t) (eq. 15)
        if params.clip:
            pred_x_start = pred_x_start.clamp(-1, 1)
        abar, abar_prev = alphas_cumprod[t], 1.0 if t_prev is None else alphas_cumprod[t_prev]
        target = pred_x_start
        if params.sampler == "dpmpp_2m":
            target = extrapolated(pred_x_start, abar, abar_prev, before)
            before = log_snr_of(abar), pred_x_start
        x_prev, variance = p_sample(params, x_t, target, abar, abar_prev)  # line 4: mean and sigma_t^2
        if t_prev is not None and variance > 0:  # line 3: z = 0 in the last step
            x_prev = x_prev + math.sqrt(variance) * noise()  # line 4: + sigma_t z
        yield Step(t, x_prev, pred_x_start)
        x_t = x_prev


def p_sample(
    params: SamplerParams, x_t: Tensor, x_start: Tensor, abar: float, abar_prev: float
) -> tuple[Tensor, float]:
    """Return the mean of x_prev, and the variance of the noise to add; abar is alphas_cumprod.

    ddpm: the posterior q(x_prev | x_t, x_0) (Ho et al. 2020, eq. 7), or its mean with the variance beta (section 3.2).
    Without clipping this mean is line 4 of the algorithm, (x_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(alpha_t)
    (eq. 11).

    ddim: deterministic with eta 0, the posterior with eta 1 (Song et al. 2021, eqs. 12 and 16).

    dpmpp_2m: the same, but new noise is 1 - exp(-2 eta h), where h is half the step's rise of log SNR, as in
    k-diffusion.
    """
    share = renewed_share(abar, abar_prev)
    if params.sampler == "ddim":
        share = params.eta**2 * share
    elif params.sampler == "dpmpp_2m":
        share = 1 - (1 - share) ** params.eta
    coef1, coef2, variance = posterior(abar, abar_prev, share)
    if params.sampler == "ddpm" and params.variance == "beta":
        variance = 1 - abar / abar_prev
    return coef1 * x_start + coef2 * x_t, variance


def extrapolated(pred_x_start: Tensor, abar: float, abar_prev: float, before: tuple[float, Tensor] | None) -> Tensor:
    """Return x_0 extrapolated from the last two estimates (DPM-Solver++(2M): Lu et al. 2022, algorithm 2).

    The extrapolation is linear in log SNR, to the middle of the step. In the first and the last step there is none.
    `before` has log SNR and estimate of the step before.
    """
    if not before or abar_prev == 1:
        return pred_x_start
    now = log_snr_of(abar)
    reach = (log_snr_of(abar_prev) - now) / 2 / (now - before[0])
    return pred_x_start + reach * (pred_x_start - before[1])


def log_snr_of(abar: float) -> float:
    """Return the log signal-to-noise ratio, log(abar / (1 - abar))."""
    return math.log(abar / (1 - abar))


def guided_denoiser(loaded: LoadedModel, labels: Tensor, params: SamplerParams, runtime: Runtime) -> Denoise:
    """Return the function that a sampler calls: the model with the labels (B,), guided as the params say.

    Infinite estimates become NaN: clipping would turn them into black or white pixels.
    """
    labels, nan = labels.to(runtime.device), math.nan

    def bound(network: UNet, labels: Tensor) -> Denoise:
        denoiser = loaded.denoiser(runtime, network)
        return lambda x_t, t: denoiser(x_t, torch.full_like(labels, t), labels).x_start.nan_to_num(nan, nan, nan)

    denoise = bound(loaded.network, labels)
    if params.guidance == 1:
        return denoise
    assert params.guidance is not None, "fit the params first"
    if params.guide == "autoguidance":
        assert loaded.guide
        guide = bound(loaded.guide, labels)
    else:
        guide = bound(loaded.network, torch.full_like(labels, NO_LABEL))
    return guided(denoise, guide, loaded.schedule, params.guidance, params.guidance_interval)


def guided(
    denoise: Denoise, guide: Denoise, schedule: NoiseSchedule, scale: float, interval: tuple[float, float]
) -> Denoise:
    """Guide a model by a worse one: D_guide + scale (D - D_guide), where log SNR is in the interval (arXiv:2404.07724).

    Classifier-free guidance: the guide is the same model without the class (Ho and Salimans 2022, arXiv:2207.12598).
    Autoguidance: the guide is the model from early in its training (Karras et al. 2024, arXiv:2406.02507).
    """
    log_snr = schedule.alphas_cumprod.logit().tolist()

    def denoise_guided(x_t: Tensor, t: int) -> Tensor:
        pred_x_start = denoise(x_t, t)
        if not interval[0] <= log_snr[t] <= interval[1]:
            return pred_x_start
        guide_x_start = guide(x_t, t)
        return guide_x_start + scale * (pred_x_start - guide_x_start)

    return denoise_guided


def sample_labels(card: ModelCard, params: SharedParams, seed: int, indices: Sequence[int]) -> Tensor:
    """Sample the label of each of `indices`, as frequent as in training; only class-conditional models use them."""
    wanted = wanted_classes(card, params)
    places = torch.cat([torch.rand(1, generator=generator(seed, "label", index)) for index in indices])
    shares = torch.tensor(card.class_counts, dtype=torch.float64)[wanted].cumsum(0)
    return torch.tensor(wanted)[torch.searchsorted(shares, places * shares[-1], right=True)]


def wanted_classes(card: ModelCard, params: SharedParams) -> list[int]:
    """Return the labels of the classes to sample, each once and in order; "all" means all classes of the model.

    Raises:
        UserError: the model cannot sample one of the classes.
    """
    if not params.classes:
        return list(card.classes)
    if not card.model.class_conditional:
        raise UserError("classes: this model is not class-conditional; set all, or train one on only these classes")
    labels = card.data.labels(params.classes, "classes")
    if unknown := sorted(set(labels) - set(card.classes)):
        seen = listed(card.data.classes[label] for label in card.classes)
        raise UserError(f"classes: the model has not seen {shown(card.data.classes[unknown[0]])}; choose from {seen}")
    return list(labels)


def fitted(params: SamplerParams, card: ModelCard) -> SamplerParams:
    """Return these params with the unset ones chosen for a model; only here is it decided whether they fit it.

    Raises:
        UserError: params ask for more steps than the model has timesteps, or for classes or guidance that it lacks; or
            they do not fit a distilled model. The message begins with the param.
    """
    wanted_classes(card, params)
    if card.timesteps:
        params = _distilled(params, len(card.timesteps))
    elif params.steps and params.steps > (timesteps := card.schedule.timesteps):
        raise UserError(f"steps: {params.steps}, but the model has only {timesteps} timesteps; lower it")
    elif params.steps and params.spacing is None:  # with all timesteps there is nothing to space
        params = params.model_copy(update={"spacing": "trailing" if card.data.shape[0] == 1 else "log_snr"})
    scale, known = params.guidance, params.guide in card.guides
    if scale is None and params.guide == "autoguidance":
        # The guide of a short training has hardly learned: its errors say little about those of the model. A guide that
        # began from another model draws well, but does not know the classes.
        learned = 1 if card.images_seen is None else min(1, card.images_seen / FULL_IMAGES)
        least = START_SCALE if card.started else 1
        scale = round(least + (FULL_SCALE - least) * learned, 2) if known else 1.0
    if scale != 1 and not known:
        guides = listed(card.guides) if card.guides else "none"
        other = "" if card.timesteps else f", or train a model with train.{GUIDED_BY[params.guide]}"
        raise UserError(f"guidance: this model has no guide {params.guide} (it has {guides}); set guidance to 1{other}")
    return params.model_copy(update={"guidance": CLASSIFIER_FREE_SCALE if scale is None else scale})


def _distilled(params: SamplerParams, few: int) -> SamplerParams:
    """Return these params for a distilled model: ancestral, with its own timesteps; those not given follow from it."""
    fitting: dict[str, tuple[Any, ...]] = {
        "sampler": ("ddpm", "ddim"),
        "variance": ("posterior",),
        "eta": (1,),
        "steps": (None, few),
        "spacing": (None,),
    }
    given = params.model_fields_set
    params = params.model_copy(update={key: values[0] for key, values in fitting.items() if key not in given})
    for key, values in fitting.items():
        if (value := getattr(params, key)) not in values:
            needed = " or ".join("null" if each is None else str(each) for each in values)
            raise UserError(f"{key}: {value}, but a distilled model needs {needed}; set that, or leave it out")
    return params


def fitted_set(
    name: str, shared: SharedParams, own: SetParams, card: ModelCard
) -> tuple[SamplerParams, dict[str, Any]]:
    """Return the params of the set `name`, `fitted` to a model, and those of them that were chosen, by dotted name.

    Raises:
        UserError: see `fitted`; or too many frames would be held in memory. The message begins with the dotted name.
    """

    def dotted(key: str) -> str:
        return f"sample.{name}.{key}" if key in SetParams.model_fields else f"sample.{key}"

    given = SamplerParams.model_construct(**dict(shared) | dict(own))
    try:
        params = fitted(given, card)
    except UserError as error:
        key, _, problem = str(error).partition(": ")
        raise UserError(f"{dotted(key)}: {problem}") from None
    unset = [] if card.timesteps else [key for key in ("guidance", "spacing") if getattr(given, key) is None]
    chosen = {dotted(key): value for key in unset if (value := getattr(params, key)) is not None}
    steps = len(card.timesteps) or params.steps or card.schedule.timesteps
    frames = -(-steps // own.keep_every) if own.keep_every else 0
    if frames * own.count > MOST_FRAMES:  # they are in memory
        kept = f"{own.keep_every} keeps {frames} frames of {own.count} images, more than {MOST_FRAMES} in all"
        raise UserError(f"{dotted('keep_every')}: {kept}; raise it, lower the count, or set 0")
    return params, chosen


class Sampling:
    """The sampling of one set of images, which grows by whole batches.

    images: uint8 (count, C, H, W).
    frames: x_t and pred_x_start at the timesteps `kept_t`, uint8 (2, frames, count, C, H, W).
    done: number of images sampled so far.
    """

    def __init__(self, name: str, loaded: LoadedModel, params: SamplerParams, own: SetParams) -> None:
        """Begin without images; `own` has count, seed and frames."""
        self.name = name
        self.loaded = loaded
        self.params = params
        self.own = own
        self.timesteps = visited(loaded, params)
        self.kept_t = [*self.timesteps[::-1][:: own.keep_every]][::-1] if own.keep_every else []
        shape = (own.count, *loaded.card.data.shape)
        self.images = torch.empty(shape, dtype=torch.uint8)
        self.frames = torch.empty(2, len(self.kept_t), *shape, dtype=torch.uint8)
        self.done = 0
        self.batch_size = 0  # with the same one, a device gives equal bytes

    def run(self, runtime: Runtime, world: World, checkpoints: Checkpoints) -> None:
        """Sample the remaining images. Each process takes a batch at a time; rank 0 gathers all.

        Raises:
            UserError: the run was interrupted.
        """
        count, evaluations = self.own.count, len(self.timesteps)
        size = min(world.gather(sample_batch_size(self.loaded, runtime)))
        if runtime.device.type == "cpu":
            size = min(size, -(-count // LEAST_BATCHES))
        self.batch_size = size
        total, done = count * evaluations, self.done * evaluations

        def rounds(world: World) -> None:
            bar = progress(desc=f"sample {self.name}", total=total, initial=done, disable=world.rank > 0, **BAR)
            with bar:
                while self.done < count:
                    first = self.done + world.rank * size
                    mine = range(first, min(first + size, count))  # empty if the other processes have the rest
                    found = self._batch(mine, runtime, checkpoints, bar) if mine else None
                    for images, frames in filter(None, world.gather(found)):
                        self._add(images, frames)
                    bar.update(self.done * evaluations - bar.n)  # images of other processes

        checkpoints.together(-(-(count - self.done) // size), rounds)

    def samples(self) -> Samples:
        """Return the set, with labels if the model is class-conditional."""
        card, params = self.loaded.card, self.params
        labels = sample_labels(card, params, self.own.seed, range(self.own.count))
        made = {"set": self.name, "sampler": params.sampler, "evaluations": len(self.timesteps)}
        made["guidance"] = params.guidance
        return Samples(
            images=self.images,
            labels=labels if card.model.class_conditional else None,
            x_t=self.frames[0],
            pred_x_start=self.frames[1],
            card=card.data,
            classes=wanted_classes(card, params),
            kept_t=self.kept_t,
            made=made,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the images and frames sampled so far."""
        return {"images": self.images[: self.done].clone(), "frames": self.frames[:, :, : self.done].clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another sampling with the same arguments."""
        self._add(state["images"], state["frames"])

    def _batch(self, indices: range, runtime: Runtime, checkpoints: Checkpoints, bar: Any) -> tuple[Tensor, Tensor]:
        """Sample the images `indices`; return them and their frames."""
        frames = torch.empty(2, len(self.kept_t), len(indices), *self.images.shape[1:], dtype=torch.uint8)
        for step in sample_batch(self.loaded, self.params, self.own.seed, indices, runtime):
            if step.t in self.kept_t:
                frames[:, self.kept_t.index(step.t)] = to_uint8(torch.stack([step.x_prev, step.pred_x_start]))
            bar.update(len(indices))
            checkpoints.tick()
        return to_uint8(step.x_prev).cpu(), frames

    def _add(self, images: Tensor, frames: Tensor) -> None:
        end = self.done + len(images)
        self.images[self.done : end], self.frames[:, :, self.done : end] = images, frames
        self.done = end
