"""What the pictures of a set become and why, the images on disk, and their levels."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.images import decoded
from ddpm.images.decoded import Images
from ddpm.images.decoding import Look, Target
from ddpm.images.folders import Picture
from ddpm.images.near_duplicates import thumbnails
from ddpm.images.preparation import MOST_FAULTS, Seen, looks_of, target_of
from ddpm.images.splits import hashed_places
from exact_stages.console import UserError
from tests.small import FRUITS, images
from tests.stages.written import data_params

WHITE = (255, 255, 255)


def looks(*sizes: tuple[int, int], coloured: int = 0) -> Seen:
    """Of pictures of these sizes, the first of which have colour."""
    return Seen(Counter(Look(*size, index < coloured) for index, size in enumerate(sizes)))


@pytest.mark.parametrize(
    ("sizes", "image_size", "inner", "outer"),
    [
        ([(28, 28)] * 2, None, (28, 28), (28, 28)),
        ([(30, 19)], None, (30, 19), (32, 20)),
        ([(49, 49)] * 2, None, (32, 32), (32, 32)),
        ([(640, 480), (9, 700)], [48, 32], (48, 32), (48, 32)),
        ([(28, 28)], [16, 7], (16, 7), (16, 8)),
    ],
)
def test_small_pictures_of_one_size_keep_it_and_others_get_one_that_can_be_halved(
    sizes: list[tuple[int, int]], image_size: object, inner: tuple[int, int], outer: tuple[int, int]
) -> None:
    target, why = target_of(looks(*sizes), **data_params(image_size=image_size, fit="pad", colour=False).wanted)
    assert target == Target((1, *outer), inner, "pad", WHITE)
    assert [*why] == ([] if image_size and inner == outer else ["data.image_size"])


def test_one_picture_in_colour_is_enough_where_colour_is_not_set() -> None:
    for colour, coloured, channels in ((None, 0, 1), (None, 1, 3), (True, 0, 3), (False, 2, 1)):
        target, why = target_of(looks((28, 28), (28, 28), coloured=coloured), **data_params(colour=colour).wanted)
        assert (target.shape[0], "data.colour" in why) == (channels, colour is None)


def pictures(folder: Path, levels: Tensor) -> list[Picture]:
    """Files of uint8 images (N, C, H, W), of the classes 0, 1, 2, 0, ..."""
    found = []
    for index, image in enumerate(levels):
        path = folder / f"{index:04d}.png"
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(path)
        found.append(Picture(path, index % 3))
    return found


def place(data: bytes) -> float:
    """Of a file, or of the levels of an array, by the definition."""
    return int(hashlib.blake2b(data, digest_size=8, key=b"place").hexdigest(), 16) / 2**64


def test_images_that_the_classifiers_cannot_halve_are_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.image_size: 4 x 4 pixels are too few; set 10"):
        target_of(looks((4, 4)), **data_params().wanted)


def test_unreadable_pictures_are_named_together_the_first_fifty(tmp_path: Path) -> None:
    given = pictures(tmp_path, images(4))
    given += [Picture(tmp_path / f"{index}.png", 0) for index in range(MOST_FAULTS + 2)]
    (tmp_path / "0001.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        looks_of(given, WHITE)
    first, *named, last = str(caught.value).split("\n  ")
    assert [each.split(": ")[0] for each in named] == [str(each.source) for each in (given[1], *given[4:-3])]
    assert (first.split()[0], last) == ("53", "and 3 more")


def test_images_are_on_disk_in_the_order_of_the_pictures_however_many_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = images(7, FRUITS.shape)
    monkeypatch.setattr(decoded, "BLOCK", 3 * 3 * 16 * 8 + 5)
    found = Images(io.BytesIO(), pictures(tmp_path, levels), Target(FRUITS.shape, (16, 8), "crop", WHITE))
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found.places.tolist() == [place(each.read_bytes()) for each in sorted(tmp_path.iterdir())]
    assert torch.equal(found.keys, hashed_places(levels, "levels"))
    torch.testing.assert_close(found.thumbnails, thumbnails(levels), rtol=0, atol=1e-6)
    for chosen in ([True] * 7, [False] * 7, [True, False, False, True, True, False, True]):
        parts = [*found.take(torch.tensor(chosen))]
        assert max(map(len, parts)) <= 3
        assert torch.equal(torch.cat(parts), levels[torch.tensor(chosen)])
