"""The mathematics can be copied: its files need torch and the standard library, and run where nothing else is."""

import shutil
import subprocess
import sys
from pathlib import Path

FILES = (  # in this order, none imports a later one
    *("schedule", "timesteps", "randomness", "denoiser", "unet", "shards", "optim"),
    *("targets", "train", "sample", "distill", "likelihood"),
)
WRONG = ("betas", "channels", "block", "prediction", "optimizer", "loss", "sampler", "evaluations")
SCRIPT = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

OF_TORCH = {"torch", "torchgen", "typing_extensions", "filelock", "sympy", "mpmath", "networkx", "jinja2", "fsspec"}

class Only(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        known = sys.stdlib_module_names | OF_TORCH | {"mine"}
        allowed = name.split(".")[0] in known or name.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if allowed else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Only]
sys.path.insert(0, sys.argv[1])
import importlib
schedule, timesteps, randomness, denoiser, unet, shards, optim, targets, train, sample, distill, likelihood = (
    importlib.import_module(f"mine.mathematics.{name}") for name in sys.argv[2:]
)
import torch

images, labels = torch.rand(4, 1, 8, 8) * 2 - 1, torch.arange(4) // 2
of = schedule.NoiseSchedule(schedule.linear_betas(20, 0.01, 0.5))
network = unet.UNet((1, 8, 8), 20, 2, channels=(4, 8), time_embed_dim=4)
model = denoiser.Denoiser(network, of, "v")
optimization = optim.Optimization(network, total_steps=3, lr=0.01)
references = targets.References(images.flatten(1), images.flatten(1).square().sum(1), labels, torch.arange(4) + 4)
stable = targets.StableTarget(images, labels, torch.arange(4), references)
batches = [train.Batch(images, labels, target) for target in (None, stable, None)]
chosen = {"cdf": timesteps.timestep_cdf(of, None), "weights": train.loss_weights("v", model.schedule)}
losses = [losses for t, losses in train.train_loop(model, optimization, batches, shards=2, **chosen)]
assert len(losses) == optimization.steps == 3 and all(each.shape == (4,) for each in losses)

denoise, visited = sample.denoise_by(model, labels), sample.spaced_timesteps(of, 4)
with torch.inference_mode():
    for sampler in sample.SAMPLERS:
        noise = randomness.ImageNoise(0, range(4), (1, 8, 8))
        *_, last = sample.p_sample_loop(denoise, of, noise, visited, sampler, eta=0.5)
        sample.check_finite(last.x_prev, range(4))
    few = [torch.Generator().manual_seed(seed) for seed in range(4)]
    bound = likelihood.variational_bound(lambda x_t, t: model(x_t, t, labels).x_start, of, images, 3, few)
assert bound.total.isfinite().all()

draw = lambda count, rng: (images[torch.randint(4, (count,), generator=rng)], labels[:count])
distillation = distill.Distillation(model, of, draw, 2, images_seen=8, batch_size=4)
assert len([*distillation.run()]) == distillation.step == 2
for wrong in (
    lambda: schedule.NoiseSchedule(torch.tensor([0.0, 0.5])),
    lambda: unet.UNet((1, 7, 8), 20, channels=(4, 8)),
    lambda: unet.UNet((1, 8, 8), 20, block="transformer"),
    lambda: denoiser.Denoiser(network, of, "x_start"),
    lambda: optim.Optimization(network, 3, optimizer="lion"),
    lambda: train.loss_weights("huber", of),
    lambda: next(sample.p_sample_loop(denoise, of, noise, visited, "euler")),
    lambda: distill.Distillation(model, of, draw, 21),
):
    try:
        wrong()
    except ValueError as error:
        print(str(error).partition(":")[0])
"""


def test_its_files_run_where_only_torch_is_installed_and_name_the_argument_that_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "mine/mathematics"  # of another name
    folder.mkdir(parents=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    for name in FILES:
        shutil.copy(Path("src/ddpm/diffusion", f"{name}.py"), folder)
    ran = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", SCRIPT, str(tmp_path), *FILES], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [*WRONG]
