"""At which noise levels a sample loses the class that was asked for, and comes away from the data.

    DDPM_THREADS=1 python -m benchmarks.class_errors

Real test images are noised to a timestep of the population's walk, and drawn from there on as sample.population says,
told their class. Of a perfect model's as many would be recognised, by classifier a, as of the real images; what is
missing was lost on the way from that noise level down, and so it is with the Frechet distance by classifier a. The
first row begins with pure noise, as every sample does.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import chain, repeat, starmap

import torch
from torch import Tensor

from benchmarks.samplers import MODEL, MODELS, PROCESSED, SEED
from ddpm.classifier.model import features_and_logits, load_classifier
from ddpm.cli.drawing_options import at_least
from ddpm.compute.device import Runtime, start
from ddpm.compute.randomness import ImageNoise, generator
from ddpm.images.pixels import to_float, to_uint8
from ddpm.images.splits import Split, load_split
from ddpm.networks.checkpoint import LoadedModel, load_model
from ddpm.pipeline.console import progress, run
from ddpm.pipeline.params import load_params
from ddpm.sampling.drawing import batches, noise_predictor, sample_batch
from ddpm.sampling.samplers import SamplerParams, sample_loop, spaced_timesteps
from ddpm.scoring.scores import FrechetDistance
from scripts.check_params import AllParams


def main() -> None:
    """Print a row for every so many steps of the walk, without a guide and with it."""
    args = arguments()
    runtime = start()
    loaded = load_model(MODEL, runtime.device)
    classifier = load_classifier(MODELS / "classifier-a.safetensors")
    train, test = (load_split(PROCESSED / f"{name}.safetensors").split for name in ("train", "test"))
    frechet = FrechetDistance(features_and_logits(classifier, train.images, runtime.device)[0])
    chosen = test.take(torch.randperm(len(test.images), generator=generator(SEED, "class errors"))[: args.count])
    guided = load_params(AllParams).sample.population.for_images(loaded.card.data.shape[0])
    plain = guided.model_copy(update={"guidance": 1.0})
    walk = spaced_timesteps(loaded.schedule, guided.steps, guided.spacing)
    log_snr = loaded.schedule.alphas_cumprod.logit()

    def scores(images: Tensor) -> str:
        features, logits = features_and_logits(classifier, images, runtime.device)
        return f"{(logits.argmax(1) == chosen.labels).double().mean():.2%}, {frechet(features):.3f}"

    print("| t | log-SNR | without a guide: as asked, distance | guided |\n| --- | --- | --- | --- |")
    for first in progress(range(0, len(walk), args.every), desc="class errors", unit="level"):
        drawn = [torch.cat([*drawn_from(loaded, chosen, walk, first, params, runtime)]) for params in (plain, guided)]
        row = " | ".join(map(scores, drawn))
        print(f"| {walk[first]} | {float(log_snr[walk[first]]):.1f} | {row} |", flush=True)
    print(f"| the images themselves | | {scores(chosen.images)} | |")


def drawn_from(
    loaded: LoadedModel, real: Split, walk: list[int], first: int, params: SamplerParams, runtime: Runtime
) -> Iterator[Tensor]:
    """The images, noised to walk[first] and drawn from there, in batches of uint8 (B, C, H, W).

    From the first of all timesteps on they begin with noise alone.
    """
    for indices in batches(0, len(real.images), sample_batch(loaded, runtime)):
        batch = real.take(slice(indices.start, indices.stop))
        noise = ImageNoise(SEED, indices, loaded.card.data.shape, runtime.device)
        begin = noise()
        if first:
            t = torch.tensor([walk[first]])
            begin = loaded.schedule.q_sample(to_float(batch.images), t, begin.cpu()).to(runtime.device)
        draws = chain([begin], starmap(noise, repeat(())))  # x_t, then the noise of each step
        predict_noise = noise_predictor(loaded, batch.labels, params, runtime)
        steps = sample_loop(predict_noise, loaded.schedule, params, partial(next, draws), walk[first:])
        with torch.inference_mode():
            *_, last = steps
        yield to_uint8(last.x_prev).cpu()


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=at_least(1), default=4000, help="test images")
    parser.add_argument("--every", type=at_least(1), default=2, help="steps of the walk between two rows")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
