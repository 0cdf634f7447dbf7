"""Pictures of any kind become frames of the base's size, or an error that names the picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from motionbooth.pictures.images import GRAY, Placement, fit_picture, read_picture
from motionbooth_protocol.errors import InvalidInput
from PIL import Image
from refused import refused


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (640, 33), (33, 640)])
def test_every_mode_and_size_is_read(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    path = tmp_path / ("p.tif" if mode in ("CMYK", "I;16") else "p.png")
    Image.new(mode, size).save(path)
    picture = read_picture(path, "picture 1 of 1")
    assert picture.size == size
    assert picture.mode in ("RGB", "RGBA")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_every_usual_format_is_read(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (60, 40), (200, 30, 40)).save(tmp_path / f"p.{suffix}")
    picture = read_picture(tmp_path / f"p.{suffix}", "picture 1 of 1")
    assert np.abs(np.asarray(picture, dtype=int) - (200, 30, 40)).max() < 6


@pytest.mark.parametrize(
    ("kind", "white"), [(np.uint16, 65535), (np.uint16, 255), (np.int32, 65535), (np.float32, 1), (np.float32, 255)]
)
def test_grey_of_more_than_eight_bits_keeps_its_greys(tmp_path: Path, kind: type, white: int) -> None:
    ramp = np.tile(np.linspace(0, white, 64), (48, 1)).astype(kind)
    Image.fromarray(ramp).save(tmp_path / "p.tif")
    found = np.asarray(read_picture(tmp_path / "p.tif", "picture 1 of 1"), dtype=int)[5, :, 0]
    assert np.abs(found - np.linspace(0, 255, 64)).max() <= 1


def test_a_telephones_heic_is_read_upright(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pip install 'motionbooth[heic]'")
    picture = Image.new("RGB", (64, 32), (200, 30, 40))
    exif = picture.getexif()
    exif[0x0112] = 6
    pillow_heif.register_heif_opener()
    picture.save(tmp_path / "p.heic", exif=exif.tobytes())
    found = read_picture(tmp_path / "p.heic", "picture 1 of 1")
    assert found.size == (32, 64)
    assert np.abs(np.asarray(found, dtype=int) - (200, 30, 40)).max() < 6


def test_a_heic_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with refused(InvalidInput, code="no_heic", picture="picture 1 of 1"):
        read_picture(tmp_path / "p.heic", "picture 1 of 1")


def test_a_photograph_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20), "red")
    exif = picture.getexif()
    exif[0x0112] = 6  # turned a quarter
    picture.save(tmp_path / "p.jpg", exif=exif)
    assert read_picture(tmp_path / "p.jpg", "picture 1 of 1").size == (20, 40)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_corrupt_picture_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.png").write_bytes(content)
    with refused(InvalidInput, picture="picture 3 of 5", reason=...):
        read_picture(tmp_path / "p.png", "picture 3 of 5")


def test_what_only_looks_like_a_picture_is_not_given_to_an_interpreter(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with Image.open(tmp_path / "p.png") as opened:
        assert opened.format == "EPS"  # which Pillow draws by running Ghostscript
    with refused(InvalidInput, picture="picture 1 of 1", reason=...):
        read_picture(tmp_path / "p.png", "picture 1 of 1")


def test_a_corrupt_picture_is_named_whatever_pillow_raises(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0100] = 6, 64
    a_float = exif.tobytes().replace(b"\x01\x00\x00\x04", b"\x01\x00\x00\x0b")  # a width that is no integer
    Image.new("RGB", (64, 48)).save(tmp_path / "p.jpg", exif=a_float)
    with refused(InvalidInput, picture="picture 2 of 5", reason=...):  # of a struct.error
        read_picture(tmp_path / "p.jpg", "picture 2 of 5")
    Image.new("RGB", (64, 48)).save(tmp_path / "p.avif")
    (tmp_path / "p.avif").write_bytes((tmp_path / "p.avif").read_bytes().replace(b"iloc", b"none"))
    with refused(InvalidInput, picture="picture 3 of 5", reason=...):  # of a RuntimeError
        read_picture(tmp_path / "p.avif", "picture 3 of 5")


def test_a_picture_cut_short_is_named(tmp_path: Path) -> None:
    Image.effect_noise((300, 300), 80).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "p.png").write_bytes(content[: len(content) // 2])
    with refused(InvalidInput, picture="picture 1 of 1", reason=...):
        read_picture(tmp_path / "p.png", "picture 1 of 1")


def halves(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """White everywhere; the mask covers the left half."""
    mask = np.zeros((height, width), dtype=np.float32)
    mask[:, : width // 2] = 1
    return np.full((height, width, 3), 255, dtype=np.uint8), mask


@pytest.mark.parametrize(("fit", "shown"), [("square", (64, 64)), ("contain", (32, 64))])
def test_padding_is_grey_and_never_in_the_mask(fit: Literal["square", "contain"], shown: tuple[int, int]) -> None:
    rgb, mask = halves(200, 400)
    picture = fit_picture(rgb, mask, width=96, height=64, fit=fit)
    assert picture.rgb.shape == (64, 96, 3)
    white = (picture.rgb == 255).all(axis=2)
    assert white.sum() == shown[0] * shown[1]
    assert (picture.rgb[~white] == GRAY).all()
    assert picture.mask.sum() == shown[0] * shown[1] / 2
    assert not picture.mask[~white].any()


@pytest.mark.parametrize("corner", [0.0, 1.0])
def test_a_placement_shrinks_and_moves_picture_and_mask_together(corner: float) -> None:
    rgb, mask = halves(200, 200)
    picture = fit_picture(rgb, mask, 96, 64, "square", Placement(scale=0.5, x=corner, y=corner))
    rows, columns = (picture.rgb == 255).all(axis=2).nonzero()
    assert (rows.min(), rows.max()) == ((0, 31) if corner == 0 else (32, 63))
    assert (columns.min(), columns.max()) == ((0, 31) if corner == 0 else (64, 95))
    assert picture.mask.sum() == 32 * 16
