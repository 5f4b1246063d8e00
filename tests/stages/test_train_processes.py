"""In how many processes the stage `train` works by itself."""

from types import SimpleNamespace
from typing import Any

import pytest

from stages.train import most_processes, worthwhile_processes


@pytest.mark.parametrize(
    ("block", "batch_size", "worthwhile", "most"),
    [
        ("residual", 1, 1, 1),
        ("residual", 64, 1, 64),
        ("residual", 511, 1, 511),
        ("residual", 512, 2, 512),
        ("residual", 2048, 8, 2048),
        ("double_conv", 2048, 1, 1),
    ],
)
def test_each_process_has_a_share_that_is_worth_it(block: str, batch_size: int, worthwhile: int, most: int) -> None:
    params: Any = SimpleNamespace(model=SimpleNamespace(block=block))
    assert worthwhile_processes(params, batch_size) == worthwhile
    assert most_processes(params, batch_size) == most
