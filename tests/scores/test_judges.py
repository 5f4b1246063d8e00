"""The judges that come along: their names, and the scale that they give to scores."""

from pathlib import Path

import pytest
import torch

from ddpm.processes.portable import PORTABLE
from ddpm.scores.judges import JUDGES, Judge
from exact_stages.files import sha256


@pytest.mark.parametrize("file", [*JUDGES.glob("*")], ids=lambda each: each.stem)
def test_a_judge_is_named_by_its_hash_and_is_small(file: Path) -> None:
    assert file.stem.rpartition("-")[2] == sha256(file)[:8]
    assert file.stat().st_size < 600_000


@pytest.mark.parametrize(
    ("count", "all_classes", "made_in", "other"),
    [
        (10_000, True, PORTABLE, ""),
        (2_000, True, PORTABLE, ", another scale: 2,000 images"),
        (10_000, True, "bfloat16", ", another scale: DDPM_PRECISION=bfloat16"),
        (10_000, False, "float32", ", another scale: some classes, DDPM_PRECISION=float32"),
    ],
)
def test_what_is_no_part_of_a_scale_is_named_as_another(
    count: int, all_classes: bool, made_in: str, other: str
) -> None:
    judge = Judge(Path("mnist-b-1-0123abcd.safetensors"), torch.ones(3) > 0, all_classes)
    assert judge.scale(count, made_in) == f"mnist-b-1 (0123abcd){other}"
