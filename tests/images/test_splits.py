"""What the stages hand on: splits and the images of chosen classes in them, and samples."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.images.card import DataCard
from ddpm.images.splits import Split, even_batch, held_out_mask, load_samples, load_split, save_split
from ddpm.pipeline import arrays as arrays_module
from ddpm.pipeline.arrays import load_arrays, save_arrays
from ddpm.pipeline.console import UserError
from tests.small import DIGITS, FRUITS, images

LABELS = torch.tensor([2, 1, 2, 0, 2])
GROUPS = torch.tensor([0, 1, 0, 3, 3])
TESTED = (4, 0, 7)


def saved(path: Path, pieces: tuple[int, ...] = (5,), card: DataCard = FRUITS) -> Path:
    """Five images, written in parts of these lengths."""
    counts = TESTED + (0,) * (len(card.classes) - 3)
    save_split(path, card, LABELS, GROUPS, counts, images(5, card.shape).split([*pieces]))
    return path


@pytest.mark.parametrize("card", [DIGITS, FRUITS])
def test_a_split_comes_back_as_it_was_saved(card: DataCard, tmp_path: Path) -> None:
    found = load_split(saved(tmp_path / "split", card=card))
    assert found.card == card
    assert found.split.images.dtype == torch.uint8
    assert torch.equal(found.split.images, images(5, card.shape))
    assert torch.equal(found.split.labels, LABELS)
    assert torch.equal(found.groups, GROUPS)
    assert found.test_counts == TESTED + (0,) * (len(card.classes) - 3)
    assert found.split.labels.dtype == found.groups.dtype == torch.int64


def test_parts_and_layout_in_memory_change_no_byte_of_the_file(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole").read_bytes()
    assert saved(tmp_path / "parts", (2, 0, 1, 2)).read_bytes() == whole
    apart = images(5, FRUITS.shape).to(memory_format=torch.channels_last)
    save_split(tmp_path / "apart", FRUITS, LABELS, GROUPS, TESTED, [apart])
    assert (tmp_path / "apart").read_bytes() == whole
    assert len(whole) < 5 * (3 * 16 * 8 + 16) + 1000  # a byte for each level


def test_a_split_s_parts_are_asked_for_one_by_one(tmp_path: Path) -> None:
    begun: list[bool] = []

    def parts() -> Iterator[Tensor]:
        for part in images(5, FRUITS.shape).split(1):
            begun.append((tmp_path / ".split.partial").exists())
            yield part

    save_split(tmp_path / "split", FRUITS, LABELS, GROUPS, TESTED, parts())
    assert begun == [True] * 5
    assert torch.equal(load_split(tmp_path / "split").split.images, images(5, FRUITS.shape))


def test_a_large_split_is_the_same_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "split")
    read = load_split(path)
    monkeypatch.setattr(arrays_module, "MAPPED", 1)
    mapped = load_split(path)
    assert mapped.card == read.card
    torch.testing.assert_close((*mapped.split, mapped.groups), (*read.split, read.groups), rtol=0, atol=0)
    mask = held_out_mask(mapped.split.images, mapped.groups, 0.5, 0)
    assert torch.equal(mask, held_out_mask(read.split.images, read.groups, 0.5, 0))


@pytest.mark.parametrize("count", [4, 6])
def test_more_or_fewer_images_than_labels_leave_no_file(count: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^images: {384 * count} bytes came for shape \(5, 3, 16, 8\)$"):
        save_split(tmp_path / "split", FRUITS, LABELS, GROUPS, TESTED, images(count, FRUITS.shape).split(2))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_between_parts_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    def parts() -> Iterator[Tensor]:
        yield images(2, FRUITS.shape)
        raise UserError("a picture has changed")

    before = saved(tmp_path / "split").read_bytes()
    with pytest.raises(UserError, match="a picture has changed"):
        save_split(tmp_path / "split", FRUITS, LABELS, GROUPS, TESTED, parts())
    assert (tmp_path / "split").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["split"]


def test_a_split_gives_the_images_of_the_classes_asked_for(tmp_path: Path) -> None:
    found, all_images = load_split(saved(tmp_path / "split")), images(5, FRUITS.shape)
    some = found.of([0, 2])
    assert torch.equal(some.images, all_images[[0, 2, 3, 4]])
    assert some.labels.tolist() == [2, 2, 0, 2]
    assert torch.equal(found.of(range(3)).images, all_images)
    assert found.of([]).images.shape == (0, 3, 16, 8)
    chosen = some.take(torch.tensor([2, 0]))
    assert torch.equal(chosen.images, all_images[[3, 0]])
    assert chosen.labels.tolist() == [0, 2]
    for part, kept in ((slice(2), [0, 2]), (slice(2, None), [3, 4]), (slice(4, None), [])):
        assert torch.equal(some.take(part).images, all_images[kept])
        assert torch.equal(some.take(part).labels, some.labels[part])
    mask = torch.tensor([False, True, False, True])
    assert some.take(mask).labels.tolist() == [2, 2]


def test_a_split_on_a_device_is_as_it_was() -> None:
    there = Split(images(2), torch.tensor([9, 3])).to(torch.device("cpu"))
    assert there.labels.tolist() == [9, 3]
    assert torch.equal(there.images, images(2))


def rewritten(path: Path, card: object = None, **changes: Tensor | None) -> Path:
    """The split at `path` with other arrays, without those that are None, or with another card."""
    arrays, metadata = load_arrays(path)
    kept = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
    save_arrays(path, kept, metadata if card is None else {**metadata, "data": card})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_split(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"images": images(5, FRUITS.shape).float()},
        {"images": images(4, FRUITS.shape)},
        {"images": images(5, (3, 8, 16))},
        {"images": images(5)},
        {"images": images(5, FRUITS.shape).flatten(1)},
        {"images": torch.tensor(3, dtype=torch.uint8)},
        {"labels": LABELS.to(torch.uint8)},
        {"labels": LABELS.double()},
        {"labels": LABELS[:4]},
        {"labels": LABELS.view(5, 1)},
        {"labels": torch.tensor(3)},
        {"labels": torch.tensor([2, 1, 3, 0, 2])},
        {"labels": torch.tensor([2, 1, -1, 0, 2])},
        {"groups": GROUPS.int()},
        {"groups": GROUPS[:4]},
        {"groups": torch.tensor(3)},
        {"groups": torch.tensor([0, 1, 0, 5, 3])},
        {"groups": torch.tensor([0, 1, 0, -1, 3])},
        {"images": images(0, FRUITS.shape), "labels": LABELS[:0], "groups": GROUPS[:0]},
    ],
    ids=lambda changes: " ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in changes.items()),
)
def test_arrays_that_are_not_those_of_a_split_are_refused(changes: dict[str, Tensor], tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path / "split"), **changes)
    assert refusal(path) == "its arrays are not those of a split; `dvc repro` makes it anew"


def test_a_split_that_lacks_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split"
    assert refusal(path).startswith("no such file; ")
    assert refusal(rewritten(saved(path), groups=None)).startswith("holds ['images', 'labels'] where ")
    assert refusal(rewritten(saved(path), more=LABELS)).startswith("holds ['groups', 'images', 'labels', 'more'] where")
    save_arrays(path, load_arrays(saved(path))[0])
    assert refusal(path) == "has no data card; `dvc repro` makes it anew"
    path.write_bytes(saved(path).read_bytes()[:-1])
    assert refusal(path).startswith("not a file of this pipeline, or damaged (")


def test_a_wrong_card_is_refused_by_key(tmp_path: Path) -> None:
    facts = FRUITS.model_dump(mode="json")
    path = rewritten(saved(tmp_path / "split"), card={**facts, "shape": [2, 16, 8]})
    assert refusal(path) == "1 invalid\n  data.shape.0: must be 1, grey, or 3, colour, got 2"
    path = rewritten(saved(path), card={**facts, "shape": [3, 8, 16]})
    assert refusal(path) == "its arrays are not those of a split; `dvc repro` makes it anew"
    path = rewritten(saved(path), card={**facts, "classes": ["apple", "fig"]})
    assert refusal(path) == "its arrays are not those of a split; `dvc repro` makes it anew"
    assert refusal(rewritten(saved(path), card=[])).startswith("1 invalid\n  data: ")


@pytest.mark.parametrize(
    "counts", [None, [], [4, 0], [4, 0, 7, 0], [4, 0, -1], [4, 0, 7.0], [4, True, 7], {"pear": 1}, 3, [4, 0, 2**62]]
)
def test_wrong_counts_of_test_images_are_refused(counts: object, tmp_path: Path) -> None:
    path = saved(tmp_path / "split")
    arrays, metadata = load_arrays(path)
    save_arrays(path, arrays, {**metadata, "test_counts": counts})
    assert refusal(path) == "its arrays are not those of a split; `dvc repro` makes it anew"
    save_arrays(path, arrays, {"data": metadata["data"]})
    assert refusal(path) == "its arrays are not those of a split; `dvc repro` makes it anew"


FRAMES = torch.arange(2 * 2 * 3 * 16 * 8).view(2, 2, 3, 16, 8).to(torch.uint8)
SAMPLES = {"images": images(2, FRUITS.shape), "x_t": FRAMES, "pred_x_start": FRAMES.flip(0)}
FACTS = {"data": FRUITS.model_dump(mode="json"), "classes": [0, 2], "kept_t": [19, 0]}


@pytest.mark.parametrize("labels", [{}, {"labels": torch.tensor([2, 0])}])
def test_samples_have_labels_or_none(tmp_path: Path, labels: dict[str, Tensor]) -> None:
    arrays = SAMPLES | labels
    save_arrays(tmp_path / "samples", arrays, FACTS)
    loaded, card, metadata = load_samples(tmp_path / "samples")
    torch.testing.assert_close(loaded, arrays, rtol=0, atol=0)
    assert card == FRUITS
    assert metadata == FACTS
    for change in ({"more": FRAMES + 1}, {"x_t": None}):
        wrong = {name: array for name, array in {**arrays, **change}.items() if array is not None}
        save_arrays(tmp_path / "wrong", wrong, FACTS)
        with pytest.raises(UserError, match="wrong: holds"):
            load_samples(tmp_path / "wrong")
    save_arrays(tmp_path / "wrong", arrays)
    with pytest.raises(UserError, match="wrong: has no data card; `dvc repro` makes it anew"):
        load_samples(tmp_path / "wrong")


def test_samples_may_have_no_kept_frames_and_no_images(tmp_path: Path) -> None:
    arrays = {**SAMPLES, "x_t": FRAMES[:0], "pred_x_start": FRAMES[:0]}
    save_arrays(tmp_path / "samples", arrays, {**FACTS, "kept_t": []})
    assert load_samples(tmp_path / "samples")[0]["x_t"].shape == (0, 2, 3, 16, 8)
    arrays = {"images": SAMPLES["images"][:0], "x_t": FRAMES[:, :0], "pred_x_start": FRAMES[:, :0]}
    save_arrays(tmp_path / "samples", arrays, FACTS)
    assert load_samples(tmp_path / "samples")[0]["images"].shape == (0, 3, 16, 8)


@pytest.mark.parametrize(
    "change",
    [
        {"images": images(3, FRUITS.shape)},
        {"images": images(2)},
        {"images": SAMPLES["images"].float()},
        {"images": torch.tensor(3, dtype=torch.uint8)},
        {"x_t": FRAMES[:1]},
        {"x_t": FRAMES.float()},
        {"x_t": FRAMES[0]},
        {"pred_x_start": FRAMES[:, :1]},
        {"pred_x_start": torch.zeros(2, 0, dtype=torch.uint8)},
        {"labels": torch.tensor([2, 3])},
        {"labels": torch.tensor([-1, 0])},
        {"labels": torch.tensor([2])},
        {"labels": torch.tensor([[2, 0]])},
        {"labels": torch.tensor([2, 0], dtype=torch.uint8)},
        {"classes": None},
        {"classes": []},
        {"classes": [3]},
        {"classes": [-1]},
        {"classes": ["pear"]},
        {"classes": [True]},
        {"classes": "all"},
        {"kept_t": None},
        {"kept_t": [19]},
        {"kept_t": [19, -1]},
        {"kept_t": [19, 0.5]},
    ],
    ids=str,
)
def test_what_is_no_set_of_samples_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    arrays = SAMPLES | {name: value for name, value in change.items() if isinstance(value, Tensor)}
    facts = FACTS | {name: value for name, value in change.items() if not isinstance(value, Tensor)}
    save_arrays(tmp_path / "samples", arrays, facts)
    with pytest.raises(UserError) as caught:
        load_samples(tmp_path / "samples")
    says = "its arrays are not those of a set of samples; `dvc repro` makes it anew"
    assert str(caught.value) == f"{tmp_path / 'samples'}: {says}"


@pytest.mark.parametrize(
    ("count", "most", "size"),
    [
        (128, 64, 64),
        (130, 64, 64),
        (134, 64, 64),  # 6 of 134 are 4.5 %
        (135, 64, 45),  # 7 of 135 are 5.2 %
        (100, 64, 50),
        (127, 64, 63),
        (63, 64, 63),
        (64, 64, 64),
        (65, 64, 64),
        (1, 64, 1),
        (7, 3, 3),
        (13, 2, 2),
        (20, 19, 19),
        (19, 18, 18),
        (19, 5, 3),
        (60_000, 64, 64),
        (5, 1, 1),
    ],
)
def test_batches_are_smaller_where_they_would_leave_many_images_out(count: int, most: int, size: int) -> None:
    assert even_batch(count, most) == size


def test_no_batch_is_empty_or_larger_than_asked_for_and_few_images_are_left_out() -> None:
    for count in range(1, 200):
        for most in range(1, 70):
            size = even_batch(count, most)
            assert 1 <= size <= min(count, most)
            assert size >= min(2, count, most)
            half = max(min(2, most), most // 2)
            fewest = min((count % each for each in range(half, most + 1)), default=0) if count > most else 0
            assert size == most if count % most <= 0.05 * count else count % size == fewest
