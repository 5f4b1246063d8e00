"""From picture files to levels."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.images.decoding import Colour, Look, Target, decode, look

WHITE, RED = (255, 255, 255), (255, 0, 0)
LOSSLESS = {"lossless": True}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def encoded(picture: Image.Image | np.ndarray, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, form, **options)  # type: ignore[arg-type]
    return file.getvalue()


def target(height: int, width: int, channels: int = 3, fit: str = "crop", background: Colour = WHITE) -> Target:
    return Target((channels, height, width), (height, width), fit, background)


def decoded(folder: Path, data: bytes, wanted: Target) -> np.ndarray:
    path = folder / "picture"
    path.write_bytes(data)
    levels = decode(path, wanted)
    assert (levels.dtype, levels.shape) == (np.uint8, wanted.shape)
    assert levels.flags["C_CONTIGUOUS"]
    return levels


@pytest.mark.parametrize(
    ("form", "modes"), [("PNG", "L LA P RGB RGBA"), ("BMP", "L RGB"), ("WEBP", "RGB RGBA"), ("GIF", "L P")]
)
def test_grey_levels_come_through_exactly(tmp_path: Path, form: str, modes: str) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(8, 32)[:, ::-1]
    for mode in modes.split():
        data = encoded(Image.fromarray(levels).convert(mode), form, **LOSSLESS if form == "WEBP" else {})
        for channels in (1, 3):
            got = decoded(tmp_path, data, target(8, 32, channels))
            np.testing.assert_array_equal(got, np.broadcast_to(levels, (channels, 8, 32)))


def test_exif_turns_a_picture_upright(tmp_path: Path) -> None:
    levels = np.repeat(np.repeat(np.array([[10, 60, 110], [160, 210, 250]], np.uint8), 8, 0), 8, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    expected = np.rot90(levels, -1)
    got = decoded(tmp_path, encoded(levels, "JPEG", exif=exif), target(*expected.shape, 1))
    np.testing.assert_allclose(got[0].astype(int), expected.astype(int), atol=6)
    assert look(tmp_path / "picture", WHITE)[0] == Look(*expected.shape, False)


RGBA = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)  # opaque, away, a fifth


def test_transparency_is_laid_on_the_background(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    palette.putpalette(RGBA[0, :, :3].tobytes())
    with_table = encoded(palette, transparency=RGBA[0, :, 3].tobytes())
    for data in (encoded(RGBA), encoded(RGBA, "WEBP", exact=True, **LOSSLESS), with_table):
        got = decoded(tmp_path, data, target(1, 3, background=(10, 20, 250)))
        assert got[:, 0].T.tolist() == [[200, 100, 0], [10, 20, 250], [48, 36, 200]]


@pytest.mark.parametrize(
    ("pixel", "colour"), [((100, 100, 116), False), ((100, 100, 117), True), ((17, 8, 0), True), ((0, 17, 9), True)]
)
def test_a_picture_has_colour_when_one_pixel_has(tmp_path: Path, pixel: Colour, colour: bool) -> None:
    levels = np.full((30, 20, 3), 100, np.uint8)
    levels[29, 7] = pixel
    (tmp_path / "picture").write_bytes(encoded(levels))
    assert look(tmp_path / "picture", WHITE)[0] == Look(30, 20, colour)


def test_colour_is_that_of_the_picture_on_its_background(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(encoded(np.array([[[0, 0, 255, 0]]], np.uint8)))
    assert [look(tmp_path / "picture", background)[0].colour for background in (WHITE, RED)] == [False, True]


def test_fits(tmp_path: Path) -> None:
    """Crop keeps the middle, pad keeps all, on the background, and stretch resizes alone."""

    def fitted(levels: np.ndarray, height: int, width: int, fit: str) -> np.ndarray:
        return decoded(tmp_path, encoded(levels), target(height, width, 3, fit, (1, 2, 3))).transpose(1, 2, 0)

    levels = noise(4, 10, 3)
    for fit in ("crop", "pad", "stretch"):
        np.testing.assert_array_equal(fitted(levels, 4, 10, fit), levels)
    np.testing.assert_array_equal(fitted(levels, 4, 4, "crop"), levels[:, 3:7])
    padded = fitted(levels, 10, 10, "pad")
    np.testing.assert_array_equal(padded[3:7], levels)
    assert {tuple(pixel) for pixel in padded[[0, 1, 2, 7, 8, 9]].reshape(-1, 3).tolist()} == {(1, 2, 3)}
    bicubic = np.asarray(Image.fromarray(levels).resize((9, 8), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(fitted(levels, 8, 9, "stretch").astype(int), bicubic.astype(int), atol=1)


def test_around_the_inner_size_edges_are_repeated(tmp_path: Path) -> None:
    data = encoded(np.array([[1, 2], [3, 4]], np.uint8))
    got = decoded(tmp_path, data, Target((1, 5, 4), (2, 2), "crop", WHITE))
    assert got[0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4], [3, 3, 4, 4]]


GOOD = {form: encoded(noise(40, 40, 3), form) for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF")}
LARGE = GOOD["BMP"][:18] + struct.pack("<ii", 10_001, 10_000) + GOOD["BMP"][26:]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>404</html>", id="a web page"),
        pytest.param(LARGE, id="more than 100 megapixels"),
        pytest.param(encoded(np.full((3, 3), np.nan, np.float32), "TIFF"), id="not a number"),
        pytest.param(GOOD["PNG"][:-30] + b"????" + GOOD["PNG"][-26:], id="PNG, wrong checksum"),
        *[pytest.param(data[: len(data) // 2], id=f"half a {form}") for form, data in GOOD.items()],
    ],
)
def test_a_bad_file_is_refused_in_a_line(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "picture.png"
    if data is not None:
        path.write_bytes(data)
    for attempt in (lambda: look(path, WHITE), lambda: decode(path, target(4, 4))):
        with pytest.raises(ValueError, match=r"^.{4,120}$") as caught:
            attempt()
        assert str(caught.value).isprintable()
