"""Provide other projects' networks, training loops and samplers, as their documentation shows, for square images.

Networks have about as many parameters as the default, and all run in float32. Batches, optimizer, rates, clipping and
averages of weights are those of the example. Functions take images in [-1, 1], float (N, C, H, W), and the steps of a
training. `make env` lacks their packages: make .venv/.with-peers.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIMESTEPS = 1000
EVALUATIONS = 24  # for each sample, as many as the default takes


class Peer(NamedTuple):
    """A network, its training steps, and its sampler, which returns images in [-1, 1]."""

    network: nn.Module
    batch: int  # images of a step
    steps: Iterator[Any]
    sample: Callable[[int], Tensor]


def diffusers(pictures: Tensor, total: int) -> Peer:
    """Build UNet2DModel in the loop of diffusers' training tutorial, without its data loader; DDIM samples."""
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_cosine_schedule_with_warmup

    batch = 16
    _, channels, _, side = pictures.shape
    network: Any = UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(32, 48, 64),
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )

    def steps() -> Iterator[float]:
        scheduler: Any = DDPMScheduler(num_train_timesteps=TIMESTEPS)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        rates = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=500, num_training_steps=total)
        while True:
            clean = some(pictures, batch)
            noise = torch.randn_like(clean)
            t = torch.randint(0, TIMESTEPS, (batch,))
            loss = F.mse_loss(network(scheduler.add_noise(clean, noise, t), t, return_dict=False)[0], noise)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            rates.step()
            optimizer.zero_grad()
            yield loss.item()

    def sample(count: int) -> Tensor:
        pipeline: Any = DDIMPipeline(network.eval(), DDIMScheduler(num_train_timesteps=TIMESTEPS))
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(count, num_inference_steps=EVALUATIONS, output_type="np").images
        return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1

    return Peer(network, batch, steps(), sample)


def denoising_diffusion_pytorch(pictures: Tensor, _: int) -> Peer:
    """Build what its Trainer does by its README: the diffusion object returns the loss of images in [0, 1]; DDIM."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    _, channels, _, side = pictures.shape
    network = Unet(dim=20, dim_mults=(1, 2, 4), channels=channels)
    diffusion = GaussianDiffusion(network, image_size=side, timesteps=TIMESTEPS, sampling_timesteps=EVALUATIONS)
    average: Any = EMA(diffusion, beta=0.995, update_every=10)
    part, parts = 32, 2  # gradients are accumulated
    batch = part * parts

    def steps() -> Iterator[float]:
        optimizer = torch.optim.Adam(diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
        while True:
            for _ in range(parts):
                loss = diffusion(some(pictures, part) / 2 + 0.5) / parts
                loss.backward()
            nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.update()
            yield loss.item() * parts

    def sample(count: int) -> Tensor:
        average.ema_model.eval()
        return average.ema_model.sample(batch_size=count) * 2 - 1

    return Peer(network, batch, steps(), sample)


def smalldiffusion(pictures: Tensor, _: int) -> Peer:
    """Build its own training_loop and samples, both generators, as in its Fashion-MNIST example.

    That has batches of 1,024, of which ten minutes of one core are some 45.
    """
    from accelerate import Accelerator
    from smalldiffusion import Scaled, ScheduleLogLinear, samples, training_loop
    from smalldiffusion.model_unet import Unet
    from torch_ema import ExponentialMovingAverage

    batch = 128
    _, channels, _, side = pictures.shape
    network = Scaled(Unet)(side, channels, channels, ch=32, ch_mult=(1, 2), attn_resolutions=(side // 2,))
    schedule, accelerator = ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800), Accelerator(cpu=True)
    loader = torch.utils.data.DataLoader[Any](pictures, batch_size=batch, shuffle=True)  # type: ignore[arg-type]
    average = ExponentialMovingAverage(network.parameters(), decay=0.999)

    def steps() -> Iterator[Any]:
        for step in training_loop(loader, network, schedule, accelerator, epochs=10**9, lr=7e-4):
            average.update()
            yield step

    def sample(count: int) -> Tensor:
        with average.average_parameters():
            sigmas = schedule.sample_sigmas(EVALUATIONS)
            *_, last = samples(network, sigmas, gam=1.6, batchsize=count, accelerator=accelerator)
        return last.clamp(-1, 1)

    return Peer(network, batch, steps(), sample)


def some(pictures: Tensor, count: int) -> Tensor:
    """Return random images."""
    return pictures[torch.randint(len(pictures), (count,))]


PEERS = {peer.__name__: peer for peer in (diffusers, denoising_diffusion_pytorch, smalldiffusion)}
