"""What the stages hand on: the images of chosen classes, and samples."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.data.splits import Split, load_samples, load_split
from ddpm.runtime.arrays import save_arrays
from ddpm.runtime.console import UserError


def test_a_split_gives_the_images_of_the_classes_asked_for(tmp_path: Path) -> None:
    images = torch.arange(5, dtype=torch.float32).view(5, 1, 1, 1).expand(-1, 1, 28, 28)
    labels = torch.tensor([7, 1, 7, 0, 9], dtype=torch.uint8)
    save_arrays(tmp_path / "split", {"images": images, "labels": labels})
    whole, some = load_split(tmp_path / "split"), load_split(tmp_path / "split", [9, 7])
    assert torch.equal(whole.images, images)
    assert torch.equal(whole.labels, labels)
    assert some.images[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert some.labels.tolist() == [7, 7, 9]
    assert some.take(torch.tensor([2, 0])).labels.tolist() == [9, 7]
    for part, kept in ((slice(2), [0, 2]), (slice(2, None), [4]), (slice(3, None), [])):
        assert some.take(part).images[:, 0, 0, 0].tolist() == kept
        assert torch.equal(some.take(part).labels, some.labels[part])
    save_arrays(tmp_path / "other", {"images": images})
    with pytest.raises(UserError, match="other: holds"):
        load_split(tmp_path / "other")


def test_a_split_on_a_device_has_labels_that_index() -> None:
    there = Split(torch.zeros(2, 1, 28, 28), torch.tensor([255, 3], dtype=torch.uint8)).to(torch.device("cpu"))
    assert there.labels.dtype == torch.int64
    assert there.labels.tolist() == [255, 3]
    assert there.images.dtype == torch.float32


@pytest.mark.parametrize("labels", [{}, {"labels": torch.tensor([3, 7], dtype=torch.uint8)}])
def test_samples_have_labels_or_none(tmp_path: Path, labels: dict[str, Tensor]) -> None:
    frames = torch.zeros(2, 0, dtype=torch.uint8)
    arrays = {"images": torch.arange(2, dtype=torch.uint8), "x_t": frames, "pred_x_start": frames + 1, **labels}
    save_arrays(tmp_path / "samples", arrays, {"classes": [3, 7]})
    loaded, card = load_samples(tmp_path / "samples")
    torch.testing.assert_close(loaded, arrays, rtol=0, atol=0)
    assert card == {"classes": [3, 7]}
    for change in ({"more": frames}, {"x_t": None}):
        wrong = {name: array for name, array in {**arrays, **change}.items() if array is not None}
        save_arrays(tmp_path / "wrong", wrong)
        with pytest.raises(UserError, match="wrong: holds"):
            load_samples(tmp_path / "wrong")
