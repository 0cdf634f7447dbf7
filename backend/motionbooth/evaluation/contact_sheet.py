"""A contact sheet: clips as rows of frames with boxes, the camera's path, and training pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from motionbooth_protocol.motion import Box, CameraPath
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

FRAME_WIDTH_PX = 240
MARGIN_PX = 10
TITLE_PX = 22
MAX_FRAMES = 16
"""Of a longer clip, this many are shown, evenly spaced from the first to the last."""
MAX_ACROSS = 12
"""More tiles go on several lines of equal length."""
PAPER, INK = (250, 250, 248), (30, 30, 34)
BOX_COLORS = ((255, 255, 255), (255, 214, 10), (64, 224, 255))
FOUND_COLOR, PATH = (255, 60, 60), (40, 90, 200)


@dataclass(frozen=True)
class Row:
    """One clip."""

    title: str
    frames: NDArray[np.uint8]  # (F, H, W, 3) RGB
    requested: Sequence[Sequence[Box | None]] = ()
    """The requested boxes, [subject][frame]."""
    found: Sequence[Sequence[Box | None]] = ()
    """The boxes found in the clip, likewise."""
    camera: CameraPath | None = None
    pictures: Sequence[Picture] = ()
    """Pictures to the left of the frames, at their height."""


def write_contact_sheet(path: Path, rows: Sequence[Row], pictures: Sequence[Picture] = ()) -> None:
    """Write a PNG with clips one below the other, and training pictures.

    Requested boxes are white (yellow, cyan for further subjects), found ones thin red.
    """
    strips = [_row_strip(row) for row in rows]
    if len(pictures):
        strips.append(_titled("training pictures", [_enlarged(picture) for picture in pictures]))
    width = max(strip.width for strip in strips) + 2 * MARGIN_PX
    height = sum(strip.height + MARGIN_PX for strip in strips) + MARGIN_PX
    page = Image.new("RGB", (width, height), PAPER)
    top = MARGIN_PX
    for strip in strips:
        page.paste(strip, (MARGIN_PX, top))
        top += strip.height + MARGIN_PX
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, "PNG")


def _row_strip(row: Row) -> Image.Image:
    tiles = []
    shown = np.unique(np.linspace(0, len(row.frames) - 1, MAX_FRAMES).round().astype(int))
    for index in shown:
        tile = _enlarged(row.frames[index])
        pen = ImageDraw.Draw(tile)
        for number, track in enumerate(row.requested):
            _draw_box(pen, track[index], tile.size, BOX_COLORS[number % len(BOX_COLORS)], 3)
        for track in row.found:
            _draw_box(pen, track[index], tile.size, FOUND_COLOR, 1)
        tiles.append(tile)
    if row.camera is not None:
        tiles.append(_camera_tile(row.camera, tiles[0].size))
    beside = [_as_high(picture, tiles[0].height) for picture in row.pictures]
    title = row.title if len(shown) == len(row.frames) else f"{row.title}   {len(shown)} of {len(row.frames)} frames"
    return _titled(title, [*beside, *tiles])


def _as_high(picture: Picture, height_px: int) -> Image.Image:
    """The picture at a frame's height; small ones are enlarged without interpolation, as frames are."""
    height, width = picture.shape[:2]
    method = Image.Resampling.BICUBIC if height > height_px else Image.Resampling.NEAREST
    return Image.fromarray(picture).resize((max(1, round(width * height_px / height)), height_px), method)


def _draw_box(
    pen: ImageDraw.ImageDraw, box: Box | None, size: tuple[int, int], color: tuple[int, int, int], line: int
) -> None:
    if box is not None:
        x1, y1, x2, y2 = np.array(box.as_tuple()) * (*size, *size)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=line)


def _camera_tile(camera: CameraPath, size: tuple[int, int]) -> Image.Image:
    """The camera's path at the scale of its first frame; one dot for each frame, the last one filled.

    If the camera does more than pan: the outline of each frame over the first one's background, the last one thick.
    """
    tile = Image.new("RGB", size, (228, 230, 234))
    pen = ImageDraw.Draw(tile)
    pen.line([(size[0] / 2, 0), (size[0] / 2, size[1])], fill=(200, 202, 208))
    pen.line([(0, size[1] / 2), (size[0], size[1] / 2)], fill=(200, 202, 208))
    if camera.homographies:
        *earlier, last = _fitted(_outlines(camera)) * size
        for outline in earlier:
            pen.polygon(list(map(tuple, outline)), outline=PATH, width=1)
        pen.polygon(list(map(tuple, last)), outline=PATH, width=3)
    else:
        places = _fitted(0.5 + np.array([[offset.dx, offset.dy] for offset in camera.offsets])) * size
        points = [tuple(place) for place in places]
        if len(points) > 1:
            pen.line(points, fill=PATH, width=2)
        for x, y in points:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), outline=PATH, fill=(255, 255, 255))
        x, y = points[-1]
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=PATH)
    pen.text((6, 4), "camera path", fill=INK, font=_font())
    return tile


def _fitted(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places (..., 2) in shares of the tile, moved toward its middle if they are outside."""
    return 0.5 + (places - 0.5) / max(1.0, float(np.abs(places - 0.5).max()) / 0.45)


def _outlines(camera: CameraPath) -> NDArray[np.float64]:
    """(F, 4, 2): the corners of each frame over the first one's background, at most two frames away."""
    corners = np.array([(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)], dtype=float)
    seen = corners @ np.linalg.inv(np.array(camera.homographies)).swapaxes(1, 2)
    return (seen[..., :2] / seen[..., 2:].clip(min=1e-6)).clip(-2, 3)


def _titled(title: str, tiles: Sequence[Image.Image]) -> Image.Image:
    lines = np.array_split(np.arange(len(tiles)), math.ceil(len(tiles) / MAX_ACROSS))
    strips = [_line([tiles[number] for number in line]) for line in lines]
    page = Image.new(
        "RGB", (max(strip.width for strip in strips), TITLE_PX + sum(strip.height for strip in strips)), PAPER
    )
    ImageDraw.Draw(page).text((0, 3), title, fill=INK, font=_font())
    top = TITLE_PX
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    return page


def _line(tiles: Sequence[Image.Image]) -> Image.Image:
    gap = MARGIN_PX // 2
    strip = Image.new("RGB", (sum(tile.width + gap for tile in tiles), max(tile.height for tile in tiles) + gap), PAPER)
    left = 0
    for tile in tiles:
        strip.paste(tile, (left, 0))
        left += tile.width + gap
    return strip


def _enlarged(picture: Picture) -> Image.Image:
    """The picture at the sheet's frame width; small ones are enlarged without interpolation, which would blur them."""
    height, width = picture.shape[:2]
    method = Image.Resampling.BICUBIC if width >= FRAME_WIDTH_PX else Image.Resampling.NEAREST
    size = (FRAME_WIDTH_PX, max(1, round(FRAME_WIDTH_PX * height / width)))
    return Image.fromarray(picture).resize(size, method)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)
