"""Principal components of pixels, on images whose components are known."""

import pytest
import torch
from torch import Tensor

from ddpm.scoring.components import principal_components


def patterns(count: int, seed: int = 0) -> Tensor:
    """Grey images that vary in two patterns: much in the upper half, less in the lower right quarter."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.full((count, 1, 8, 8), 128.0)
    images[:, :, :4] += 30 * torch.randn(count, 1, 1, 1, generator=rng)
    images[:, :, 4:, 4:] += 10 * torch.randn(count, 1, 1, 1, generator=rng)
    return images.clamp(0, 255).round().to(torch.uint8)


def test_the_directions_are_those_in_which_images_vary_most() -> None:
    found = principal_components(patterns(2000), 2)
    assert found.directions.shape == (64, 2)
    upper, corner = torch.zeros(2, 8, 8)
    upper[:4], corner[4:, 4:] = 32**-0.5, 0.25
    expected = torch.stack([upper.flatten(), corner.flatten()], dim=1)
    assert (found.directions.T @ expected).abs().diagonal().min() > 0.999
    torch.testing.assert_close(found.directions.T @ found.directions, torch.eye(2), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("count", "expected"), [(3, 3), (30, 30), (300, 40)])
def test_of_few_images_there_are_fewer(count: int, expected: int) -> None:
    images = torch.randint(256, (count, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seen = principal_components(images)(images)
    assert seen.shape == (count, expected)
    assert seen.mean(0).abs().max() < 1e-4
