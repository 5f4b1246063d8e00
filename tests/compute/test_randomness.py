"""The randomness that needs no state: a generator for each name, and noise for each image."""

import pytest
import torch

from ddpm.compute.randomness import CALLS_AHEAD, CPU, Ahead, ImageNoise, generator
from tests.small import DIGITS, FRUITS


def draw(*name: object) -> list[float]:
    return torch.rand(4, generator=generator(*name)).tolist()  # type: ignore[arg-type]


def test_a_generator_is_that_of_its_three_names() -> None:
    first = draw(0, "train", 5)
    torch.rand(100)
    assert draw(0, "train", 5) == first
    others = [draw(1, "train", 5), draw(0, "image", 5), draw(0, "train", 6), draw(0, "train"), draw(5, "train", 0)]
    assert len({tuple(values) for values in [first, *others]}) == 6


def test_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    draw(0, "train", 5)
    ImageNoise(0, [0, 1], DIGITS.shape)()
    assert torch.equal(torch.get_rng_state(), before)


def test_generators_are_pinned() -> None:
    # A change here changes every result of the project.
    assert generator(0, "train", 0).initial_seed() == 3168021335108090602
    assert draw(0, "train", 0) == pytest.approx([0.2869742, 0.6810609, 0.7739152, 0.394296], abs=1e-6)


@pytest.mark.parametrize("shape", [DIGITS.shape, FRUITS.shape])
def test_the_noise_of_an_image_is_the_same_in_any_batch(shape: tuple[int, int, int]) -> None:
    together = ImageNoise(3, range(6), shape)
    alone = ImageNoise(3, [4], shape)
    turned = ImageNoise(3, [5, 4, 100], shape)
    for _ in range(3):
        whole, single, other = together(), alone(), turned()
        assert whole.shape == (6, *shape)
        assert whole.dtype == torch.float32
        assert torch.equal(single[0], whole[4])
        assert torch.equal(other[:2], whole[[5, 4]])
        assert len({image.sum().item() for image in whole}) == 6


@pytest.mark.parametrize("shape", [DIGITS.shape, FRUITS.shape, (1, 5, 7)])  # 784, 384 and 35 numbers: 35 is no 16s
@pytest.mark.parametrize("count", [1, 3, 20])
def test_noise_drawn_ahead_for_a_gpu_is_the_same(shape: tuple[int, int, int], count: int) -> None:
    alone = ImageNoise(3, range(count), shape)
    ahead = Ahead([generator(3, "image", index) for index in range(count)], shape, CPU)
    for _ in range(2 * CALLS_AHEAD + 1):
        with torch.inference_mode():  # as a sampler is, anew in each step
            assert torch.equal(next(ahead), alone())


def test_noise_is_brought_to_its_device() -> None:
    assert ImageNoise(0, [0], DIGITS.shape, torch.device("meta"))().device.type == "meta"


def test_the_noise_goes_on_and_hangs_on_the_seed() -> None:
    noise = ImageNoise(3, [0], DIGITS.shape)
    first, second = noise(), noise()
    assert not torch.equal(first, second)
    assert torch.equal(ImageNoise(3, [0], DIGITS.shape)(), first)
    assert not torch.equal(ImageNoise(4, [0], DIGITS.shape)(), first)


def test_the_noise_is_standard_normal() -> None:
    noise = ImageNoise(0, range(200), DIGITS.shape)()
    # 156,800 draws: five standard errors.
    assert noise.mean().item() == pytest.approx(0, abs=0.0127)
    assert noise.var().item() == pytest.approx(1, abs=0.018)
    # Independent between images: correlations have a deviation of 1/28.
    correlations = noise.flatten(1).corrcoef().fill_diagonal_(0)
    assert correlations.abs().max() < 6 / 28
