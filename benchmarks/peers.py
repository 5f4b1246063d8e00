"""Other projects' networks and training loops, each as its documentation shows it, for 28 x 28 grey images.

Sizes are chosen near the default's number of parameters. All run in float32, as their documentation does. Of the two
that `make env` does not install: pip install --constraint constraints.txt '.[peers]'.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

BATCH = 128
TIMESTEPS = 1000


class Peer(NamedTuple):
    """A network with an example of its inputs, and its training steps."""

    name: str
    network: nn.Module
    inputs: tuple[Any, ...]
    steps: Iterator[Any]


def peers(device: torch.device) -> Iterator[Peer]:
    """Those that are installed; of the others is said what is missing."""
    contestants: list[Callable[[torch.device], Peer]] = [diffusers, denoising_diffusion_pytorch, smalldiffusion]
    for contestant in contestants:
        try:
            yield contestant(device)
        except ImportError as error:
            print(f"{contestant.__name__}: left out, {error}; pip install --constraint constraints.txt '.[peers]'")


def diffusers(device: torch.device) -> Peer:
    """UNet2DModel in the loop of diffusers' training tutorial, without its data loader."""
    network: Any = UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 48, 64),
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    network.to(device)
    steps = plain_loop(network, lambda x_t, t: network(x_t, t, return_dict=False)[0], BATCH)
    return Peer("diffusers' UNet2DModel", network, (images(device), timesteps(device)), steps)


def denoising_diffusion_pytorch(device: torch.device) -> Peer:
    """The loop of its README: the diffusion object gives the loss of images in [0, 1]."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    network = Unet(dim=20, dim_mults=(1, 2, 4), channels=1).to(device)
    diffusion = GaussianDiffusion(network, image_size=28, timesteps=TIMESTEPS).to(device)

    def steps() -> Iterator[Any]:
        optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4)
        pictures = images(device) / 2 + 0.5
        while True:
            loss = diffusion(pictures)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield loss.item()

    return Peer("denoising-diffusion-pytorch's Unet", network, (images(device), timesteps(device)), steps())


def smalldiffusion(device: torch.device) -> Peer:
    """Its own training_loop, a generator, with the U-Net and the schedule of its examples."""
    from accelerate import Accelerator
    from smalldiffusion import Scaled, ScheduleDDPM, training_loop
    from smalldiffusion.model_unet import Unet

    network = Scaled(Unet)(28, 1, 1, ch=32, ch_mult=(1, 2), attn_resolutions=(14,)).to(device)
    schedule = ScheduleDDPM(beta_start=1e-4, beta_end=0.02, N=TIMESTEPS)
    accelerator = Accelerator(cpu=device.type == "cpu")
    pictures: Any = images(torch.device("cpu"), 100 * BATCH)
    loader = torch.utils.data.DataLoader[Any](pictures, batch_size=BATCH, shuffle=True)

    def steps() -> Iterator[Any]:
        for state in training_loop(loader, network, schedule, accelerator, lr=7e-4):
            yield state.loss.item()

    return Peer("smalldiffusion's Unet", network, (images(device), torch.ones(BATCH, 1, 1, 1, device=device)), steps())


def plain_loop(network: nn.Module, predict_noise: Callable[[Tensor, Tensor], Tensor], batch: int) -> Iterator[float]:
    """The loop that tutorials show: Adam, float32, the loss of every step read."""
    device = next(network.parameters()).device
    scheduler: Any = DDPMScheduler(num_train_timesteps=TIMESTEPS)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    pictures = images(device, batch)
    while True:
        noise = torch.randn_like(pictures)
        t = torch.randint(0, TIMESTEPS, (batch,), device=device)
        loss = F.mse_loss(predict_noise(scheduler.add_noise(pictures, noise, t), t), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def images(device: torch.device, count: int = BATCH) -> Tensor:
    """Noise in [-1, 1], for speed does not depend on what is seen."""
    return torch.rand(count, 1, 28, 28, device=device) * 2 - 1


def timesteps(device: torch.device) -> Tensor:
    """One for each image of a batch."""
    return torch.full((BATCH,), 500, device=device)
