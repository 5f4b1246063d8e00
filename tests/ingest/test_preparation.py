"""From pictures to the images of a set: what they become and why, the images on disk, and their levels."""

import hashlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ddpm.images.pixels import to_float
from ddpm.images.splits import hashed_places
from ddpm.ingest import preparation
from ddpm.ingest.decoding import Look, Target
from ddpm.ingest.folders import Picture
from ddpm.ingest.near_duplicates import thumbnails
from ddpm.ingest.preparation import DataParams, Images, counted, looks_of, statistics_of, target_of
from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import parse
from tests.small import FRUITS, images

WHITE = (255, 255, 255)
PARAMS = {"set": "data/fruits", "image_size": None, "colour": None, "fit": "crop", "background": "white", "test": 0.1}


def params(**changes: object) -> DataParams:
    return parse(DataParams, PARAMS | changes, "params.yaml", "data")


def looks(*sizes: tuple[int, int], coloured: int = 0) -> list[Look]:
    """Of pictures of these sizes, the first of which have colour."""
    return [Look(*size, index < coloured) for index, size in enumerate(sizes)]


# --- params ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "colour"),
    [("white", WHITE), ("#a0b0c0", (160, 176, 192)), ("#a0b0c040", (160, 176, 192)), ("hsl(0,100%,50%)", (255, 0, 0))],
)
def test_a_background_is_a_colour(text: str, colour: tuple[int, int, int]) -> None:
    assert params(background=text).background_colour == colour


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"background": "wite"}, 'background: must be a colour such as white, black or #a0b0c0, got "wite"'),
        ({"background": 255}, "background: input should be a valid string, got 255"),
        ({"fit": "fill"}, "fit: input should be 'crop', 'pad' or 'stretch', got \"fill\""),
        ({"colour": 1}, "colour: input should be a valid boolean, got 1"),
        ({"test": 0}, "test: input should be greater than 0, got 0"),
        ({"test": 0.6}, "test: input should be less than or equal to 0.5, got 0.6"),
        ({"set": ""}, "set: "),
        ({"image_size": 0}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"image_size": [48]}, "image_size"),
        ({"image_size": [48, 32, 3]}, "image_size"),
        ({"image_size": 1025}, "image_size"),
    ],
)
def test_params_out_of_range_are_refused_by_name(change: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as caught:
        params(**change)
    assert str(caught.value).split("\n  ", 1)[1].startswith(f"data.{says}")


# --- what the pictures become ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "inner", "shape", "why"),
    [
        ([(28, 28)] * 2, (28, 28), (1, 28, 28), "28 x 28, their own"),
        ([(16, 8)], (16, 8), (1, 16, 8), "16 x 8, their own"),
        ([(48, 20)] * 3, (48, 20), (1, 48, 20), "48 x 20, their own"),
        ([(30, 19)], (30, 19), (1, 32, 20), "30 x 19, their own, padded to 32 x 20, which can be halved"),
        ([(49, 49)] * 2, (32, 32), (1, 32, 32), "32 x 32, by fit crop; their sides are 49 to 49 pixels"),
        ([(20, 49)] * 2, (32, 32), (1, 32, 32), "32 x 32, by fit crop; their sides are 20 to 49 pixels"),
        ([(28, 28), (28, 27)], (32, 32), (1, 32, 32), "32 x 32, by fit crop; their sides are 27 to 28 pixels"),
        ([(640, 480), (9, 700)], (32, 32), (1, 32, 32), "32 x 32, by fit crop; their sides are 9 to 700 pixels"),
    ],
)
def test_small_pictures_of_one_size_keep_it_and_others_get_one(
    sizes: list[tuple[int, int]], inner: tuple[int, int], shape: tuple[int, int, int], why: str
) -> None:
    target, reasons = target_of(looks(*sizes), params())
    assert target == Target(shape, inner, "crop", WHITE)
    assert reasons == {"data.image_size": why, "data.colour": f"false, since 0 of {len(sizes)} images have colour"}


@pytest.mark.parametrize(
    ("size", "inner", "shape", "why"),
    [
        (32, (32, 32), (1, 32, 32), None),
        ([48, 32], (48, 32), (1, 48, 32), None),
        (30, (30, 30), (1, 32, 32), "30 x 30, padded to 32 x 32, which can be halved"),
        ([16, 7], (16, 7), (1, 16, 8), "16 x 7, padded to 16 x 8, which can be halved"),
    ],
)
def test_a_size_that_is_set_is_kept_and_padded_where_it_must_be(
    size: object, inner: tuple[int, int], shape: tuple[int, int, int], why: str | None
) -> None:
    target, reasons = target_of(looks((28, 28), (100, 50)), params(image_size=size, colour=False, fit="pad"))
    assert target == Target(shape, inner, "pad", WHITE)
    assert reasons == ({} if why is None else {"data.image_size": why})


def test_one_picture_in_colour_is_enough() -> None:
    given = looks((28, 28), (28, 28), coloured=1)
    target, reasons = target_of(given, params(background="#010203"))
    assert target == Target((3, 28, 28), (28, 28), "crop", (1, 2, 3))
    assert reasons["data.colour"] == "true, since 1 of 2 images have colour"


@pytest.mark.parametrize(("colour", "channels"), [(True, 3), (False, 1)])
def test_colour_that_is_set_needs_no_reason(colour: bool, channels: int) -> None:
    for coloured in (0, 2):
        target, reasons = target_of(looks((28, 28), (28, 28), coloured=coloured), params(colour=colour))
        assert target.shape[0] == channels
        assert [*reasons] == ["data.image_size"]


# --- pictures in a folder --------------------------------------------------------------------------------------------


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


@pytest.fixture
def scratch() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        yield file


def test_looks_are_in_the_order_of_the_pictures_and_are_counted(tmp_path: Path) -> None:
    given = pictures(tmp_path, images(3, FRUITS.shape))
    grey = np.zeros((5, 7), np.uint8)
    ticks: list[int] = []
    found = looks_of([*given, Picture(grey, 0)], WHITE, ticks.append)
    assert found == [Look(16, 8, True)] * 3 + [Look(5, 7, False)]
    assert sum(ticks) == 4


def test_unreadable_pictures_are_named_together(tmp_path: Path) -> None:
    given = pictures(tmp_path, images(4))
    empty, other = tmp_path / "0001.png", tmp_path / "0003.png"
    empty.write_bytes(b"")
    other.write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        looks_of(given, WHITE, lambda _: None)
    assert str(caught.value).split("\n  ") == [
        "2 unreadable pictures; mend or remove:",
        f"{empty}: empty",
        f"{other}: not a readable PNG, JPEG, WebP, BMP or GIF picture",
    ]
    with pytest.raises(UserError, match=rf"^1 unreadable picture; mend or remove:\n  {empty}: empty$"):
        looks_of(given[:2], WHITE, lambda _: None)


def test_of_many_unreadable_pictures_fifty_are_named(tmp_path: Path) -> None:
    given = [Picture(tmp_path / f"{index}.png", 0) for index in range(53)]
    with pytest.raises(UserError) as caught:
        looks_of(given, WHITE, lambda _: None)
    first, *named, last = str(caught.value).split("\n  ")
    assert first == "53 unreadable pictures; mend or remove:"
    assert named == [f"{each.source}: No such file or directory" for each in given[:50]]
    assert last == "and 3 more"


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_images_are_on_disk_in_the_order_of_the_pictures(
    rows: int, tmp_path: Path, scratch: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of them are in memory together."""
    levels = images(7, FRUITS.shape)
    monkeypatch.setattr(preparation, "BLOCK", rows * 3 * 16 * 8 + 5)
    ticks: list[int] = []
    found = Images(scratch, pictures(tmp_path, levels), Target(FRUITS.shape, (16, 8), "crop", WHITE), ticks.append)
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found.labels.dtype == torch.int64
    assert sum(ticks) == 7
    assert max(ticks) == min(rows, 7)
    assert found.places.tolist() == [place(each.read_bytes()) for each in sorted(tmp_path.iterdir())]
    assert found.places.dtype == torch.float64
    assert torch.equal(found.keys, hashed_places(levels, "levels"))
    torch.testing.assert_close(found.thumbnails, thumbnails(levels), rtol=0, atol=1e-6)
    for chosen in ([True] * 7, [False] * 7, [True, False, False, True, True, False, True], [False] * 6 + [True]):
        mask = torch.tensor(chosen)
        parts = [*found.take(mask)]
        assert all(part.dtype == torch.uint8 and len(part) <= rows for part in parts)
        assert torch.equal(torch.cat(parts), levels[mask])


def test_images_have_the_form_that_is_wanted(tmp_path: Path, scratch: IO[bytes]) -> None:
    """Grey, fitted, and padded by their edges."""
    levels = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2) * 60
    given = [*pictures(tmp_path, levels), Picture(levels[0, 0].numpy(), 1)]
    found = Images(scratch, given, Target((1, 4, 3), (2, 2), "stretch", WHITE), lambda _: None)
    (images,) = found.take(torch.tensor([True, True]))
    rows = [[0, 60, 60], [0, 60, 60], [120, 180, 180], [120, 180, 180]]
    assert images.tolist() == [[rows]] * 2
    assert found.labels.tolist() == [0, 1]


def test_places_are_of_the_files_alone_and_keys_of_the_levels(tmp_path: Path) -> None:
    levels = images(3)
    given = [*pictures(tmp_path, levels), Picture(levels[1, 0].numpy(), 0)]
    Image.open(tmp_path / "0000.png").save(tmp_path / "0000.bmp")
    given.append(Picture(tmp_path / "0000.bmp", 1))
    targets = [Target((1, 28, 28), (28, 28), "crop", WHITE), Target((3, 8, 4), (8, 4), "pad", (0, 0, 0))]
    first, other = (Images(io.BytesIO(), given, target, lambda _: None) for target in targets)
    assert torch.equal(first.places, other.places)
    assert first.places[3] == place(bytes(levels[1].flatten().tolist()))
    assert len(first.places.unique()) == 5
    for found in (first, other):
        assert found.keys[3] == found.keys[1]
        assert found.keys[4] == found.keys[0]
        assert len(found.keys.unique()) == 3
    assert not torch.isin(first.keys, other.keys).any()


def test_a_picture_that_has_changed_since_it_was_looked_at_is_named(tmp_path: Path) -> None:
    given = pictures(tmp_path, images(3))
    (tmp_path / "0002.png").unlink()
    with pytest.raises(UserError) as caught:
        Images(io.BytesIO(), given, Target((1, 28, 28), (28, 28), "crop", WHITE), lambda _: None)
    assert str(caught.value) == f"{given[2].source}: No such file or directory; it changed meanwhile, so run it again"


# --- levels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), FRUITS.shape])
def test_mean_and_deviation_are_those_of_torch(shape: tuple[int, int, int]) -> None:
    levels = images(9, shape)
    counts = torch.zeros(256, dtype=torch.long)
    parts = [*counted(iter(levels.split(4)), counts)]
    assert torch.equal(torch.cat(parts), levels)
    assert torch.equal(counts, levels.flatten().bincount(minlength=256))
    values = to_float(levels).double()
    found = statistics_of(counts)
    assert found.mean == pytest.approx(values.mean().item(), rel=1e-12, abs=1e-14)
    assert found.deviation == pytest.approx(values.std().item(), rel=1e-12)


def test_levels_of_no_image_and_of_one_level() -> None:
    counts = torch.zeros(256, dtype=torch.long)
    for part in counted(iter([images(0), torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)]), counts):
        assert part.dtype == torch.uint8
    assert counts.nonzero().tolist() == [[255]]
    assert counts[255] == 32
    assert statistics_of(counts) == (1.0, 0.0)
