"""The two forms of an image."""

import torch

from ddpm.data.images import to_float, to_uint8


def test_every_byte_survives_the_way_to_float_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert floats[0] == -1
    assert floats[255] == 1
    torch.testing.assert_close(floats.double(), torch.arange(256).double() / 127.5 - 1, rtol=0, atol=1.2e-7)
    assert to_uint8(floats).dtype == torch.uint8
    assert torch.equal(to_uint8(floats), every)


def test_floats_are_clipped_and_rounded_to_the_nearest_byte() -> None:
    step = 1 / 127.5
    values = torch.tensor([-1.5, -1.0, 1.0, 1.5, 1e30, -float("inf"), -1 + 0.49 * step, -1 + 0.51 * step, 0.4 * step])
    assert to_uint8(values).tolist() == [0, 0, 255, 255, 255, 0, 0, 1, 128]
