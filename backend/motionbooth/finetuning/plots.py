"""Plots of a training: the masks, the losses, the validation samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from motionbooth.finetuning.trainer import StepLosses
from motionbooth.pictures.images import Rgb, TrainingPicture

TILE_PX, GAP_PX, COLUMNS = 192, 8, 5
CHART_PX = (720, 360)
PAPER, INK, GRID = (250, 250, 248), (30, 30, 34), (214, 214, 210)
MASK_TINT = (255, 40, 160)
COLORS = {"total": INK, "region": (200, 60, 40), "attention": (40, 120, 200), "preservation": (40, 150, 80)}
SMOOTHING = 0.9  # decay of the moving average


def plot_masks(path: Path, pictures: Sequence[TrainingPicture]) -> None:
    """Write a PNG of each picture in its frame, everything but the subject tinted."""
    tiles = []
    for picture in pictures:
        outside = (picture.mask < 0.5)[..., None]
        tinted = np.where(outside, picture.rgb * 0.4 + np.array(MASK_TINT) * 0.3, picture.rgb)
        tiles.append(tinted.astype(np.uint8))
    _sheet(tiles, [str(number) for number in range(1, len(tiles) + 1)]).save(path, "PNG")


def plot_samples(path: Path, samples: Sequence[tuple[str, Rgb]]) -> None:
    """Write a PNG of validation samples (title, frame)."""
    _sheet([frame for _, frame in samples], [title for title, _ in samples]).save(path, "PNG")


def _sheet(tiles: Sequence[Rgb], titles: Sequence[str]) -> Image.Image:
    font = ImageFont.load_default(14)
    height = round(TILE_PX * tiles[0].shape[0] / tiles[0].shape[1])
    rows, columns = math.ceil(len(tiles) / COLUMNS), min(COLUMNS, len(tiles))
    cell = TILE_PX + GAP_PX, height + 20 + GAP_PX
    page = Image.new("RGB", (columns * cell[0] + GAP_PX, rows * cell[1] + GAP_PX), PAPER)
    draw = ImageDraw.Draw(page)
    for number, (tile, title) in enumerate(zip(tiles, titles, strict=True)):
        left, top = GAP_PX + number % columns * cell[0], GAP_PX + number // columns * cell[1]
        draw.text((left, top), title, INK, font)
        page.paste(Image.fromarray(tile).resize((TILE_PX, height)), (left, top + 20))
    return page


def plot_losses(path: Path, history: Sequence[StepLosses]) -> None:
    """Write a PNG of the losses over the steps, smoothed, on a logarithmic scale; nothing without positive values."""
    curves = {name: _smoothed([getattr(losses, name) for losses in history]) for name in COLORS}
    drawn = {name: curve for name, curve in curves.items() if curve and max(curve) > 0}
    values = [value for curve in drawn.values() for value in curve if value > 0]
    if not values:
        return
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    _chart(drawn, low, max(high, low + 1), len(history)).save(path, "PNG")


def _smoothed(values: Sequence[float | None]) -> list[float]:
    """An exponential moving average without the bias to zero at its start; empty if no value is finite."""
    smooth: list[float] = []
    total = weight = 0.0
    for value in values:
        if value is None or not math.isfinite(value):
            continue
        total, weight = SMOOTHING * total + value, SMOOTHING * weight + 1
        smooth.append(total / weight)
    return smooth


def _chart(curves: dict[str, list[float]], low: int, high: int, steps: int) -> Image.Image:
    """`low`, `high`: the powers of ten at the lower and upper edge."""
    font = ImageFont.load_default(13)
    page = Image.new("RGB", CHART_PX, PAPER)
    draw = ImageDraw.Draw(page)
    left, top, right, bottom = 60, 30, CHART_PX[0] - 20, CHART_PX[1] - 30

    def position(index: float, value: float) -> tuple[float, float]:
        y = (math.log10(max(value, 10**low)) - low) / (high - low)
        return left + index * (right - left), bottom - y * (bottom - top)

    for power in range(low, high + 1):
        _, y = position(0, 10**power)
        draw.line((left, y, right, y), GRID)
        draw.text((8, y - 8), f"{10**power:g}", INK, font)
    draw.text((right - 70, bottom + 8), f"{steps} steps", INK, font)
    for number, (name, curve) in enumerate(curves.items()):
        points = [position(k / max(len(curve) - 1, 1), value) for k, value in enumerate(curve)]
        draw.line(points * 2 if len(points) == 1 else points, COLORS[name], 2)
        draw.text((left + number * 120, 8), name, COLORS[name], font)
    return page
