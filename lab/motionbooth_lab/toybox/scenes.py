"""Batches of random scenes as numbers: subjects, paths, cameras and captions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motionbooth_lab.toybox.backgrounds import CANVAS_PX, KIND_PLACES, PLACES
from motionbooth_lab.toybox.bank import Bank, Entry
from motionbooth_lab.toybox.characters import SWINGS, YAWS
from motionbooth_lab.toybox.draw import (
    HEIGHT_PX,
    MAX_PAN_PX,
    TOYBOX,
    WIDTH_PX,
    ClipFormat,
    has_contrast,
    is_held_out,
)

PLACE_NAMES = tuple(PLACES)
EMPTY = {place: "the " + words.split(" the ")[-1] for place, words in PLACES.items()}
"""Captions of places without a subject, e.g. "the grass"."""

EMPTY_SHARE, KIND_SHARE = 0.06, 0.3
OWN_WORD_SHARE, COLOR_SHARE = 0.55, 0.3
"""Shares of the captions of characters with the character's own word and with its color names."""

ZOOM_SHARE, ROLL_SHARE = 0.12, 0.08
MAX_ZOOM, MAX_ROLL = 1.35, np.deg2rad(16)
OWN_WORD = "<{}>"
"""A character's own word in captions. It is not in the tokenizer's vocabulary."""


@dataclass(frozen=True)
class Scenes:
    """B scenes of F frames, in pixels of the frame (96 x 64), y down.

    sprite (B, F): index in the bank, -1 for no subject; center (B, F, 2); half (B, F): half of the sprite's side; lean
    (B, F): rotation in the image plane; flip (B,); place, texture (B,); corner (B, 2): the frame's corner on the
    texture; camera (B, F, 2): travel; zoom, roll (B, F): of the camera; gain (B,): brightness.
    """

    captions: list[str]
    phrases: list[str]
    sprite: NDArray[np.int64]
    center: NDArray[np.float32]
    half: NDArray[np.float32]
    lean: NDArray[np.float32]
    flip: NDArray[np.bool_]
    place: NDArray[np.int64]
    texture: NDArray[np.int64]
    corner: NDArray[np.float32]
    camera: NDArray[np.float32]
    zoom: NDArray[np.float32]
    roll: NDArray[np.float32]
    gain: NDArray[np.float32]


@dataclass(frozen=True)
class Casting:
    """What scenes show. `places`: only the first ones."""

    clip_format: ClipFormat = TOYBOX
    empty_share: float = EMPTY_SHARE
    kind_share: float = KIND_SHARE
    places: int = len(PLACES)


class SceneMaker:
    """Draws random scenes of a bank's subjects. Kinds never appear in a held-out combination."""

    def __init__(self, bank: Bank, casting: Casting = Casting()) -> None:
        self._bank, self._casting = bank, casting
        self._kinds, self._others = np.asarray(bank.kinds), np.asarray(bank.others)
        self._textures = bank.textures.shape[1]
        self._allowed = {index: _allowed_places(bank.entries[index]) for index in bank.kinds}

    def draw(self, count: int, frames: int, rng: np.random.Generator) -> Scenes:
        """Draw `count` scenes with `frames` frames each: the clip's length, or 1 (a random frame of a clip)."""
        length, pace = self._casting.clip_format.frames, self._casting.clip_format.pace
        who, place, words = zip(*(self._cast(rng) for _ in range(count)), strict=True)
        chosen = np.asarray(who)
        start = np.zeros(count, np.int64) if frames == length else rng.integers(0, length, count)
        take = start[:, None] + np.arange(frames)
        rows = np.arange(count)[:, None]
        flat = np.array([index < 0 or self._bank.entries[index].turns == 1 for index in who])
        half = _sizes(flat, rng, length)
        camera, zoom, roll = _camera(count, rng, length, pace)
        low = 40 - camera.min(1).clip(max=0)
        high = CANVAS_PX - 40 - np.array([WIDTH_PX, HEIGHT_PX]) - camera.max(1).clip(min=0)
        center = _paths(half, rng, pace)
        return Scenes(
            captions=[caption for caption, _ in words],
            phrases=[phrase for _, phrase in words],
            sprite=self._sprites(chosen, center, rng)[rows, take],
            center=center[rows, take].astype(np.float32),
            half=half[rows, take].astype(np.float32),
            lean=(_leans(count, rng, length) * np.where(flat, 1.0, 0.3)[:, None])[rows, take].astype(np.float32),
            flip=flat & (center[:, -1, 0] < center[:, 0, 0]),
            place=np.asarray(place),
            texture=rng.integers(0, self._textures, count),
            corner=rng.uniform(low, high).astype(np.float32),
            camera=camera[rows, take].astype(np.float32),
            zoom=zoom[rows, take].astype(np.float32),
            roll=roll[rows, take].astype(np.float32),
            gain=rng.uniform(0.9, 1.1, count).astype(np.float32),
        )

    def _cast(self, rng: np.random.Generator) -> tuple[int, int, tuple[str, str]]:
        """The subject's index (-1: none), the index of the place, and (caption, phrase)."""
        draw = rng.random()
        cast = self._casting
        if draw < cast.empty_share:
            place = int(rng.integers(cast.places))
            return -1, place, (EMPTY[PLACE_NAMES[place]], "")
        if draw < cast.empty_share + cast.kind_share:
            who = int(rng.choice(self._kinds))
            place = int(rng.choice(self._allowed[who]))
            entry = self._bank.entries[who]
            phrase = f"{entry.colors[0]} {entry.noun}" if rng.random() < 0.92 else entry.noun
        else:
            who, place = int(rng.choice(self._others)), int(rng.integers(cast.places))
            phrase = _phrase(who, self._bank.entries[who], rng)
        return who, place, (_worded(phrase, PLACE_NAMES[place], rng), phrase)

    def _sprites(
        self, who: NDArray[np.int64], center: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Sprite indices (B, F): characters turn gradually, and walk if they move."""
        count, clip_format = len(who), self._casting.clip_format
        entries = [self._bank.entries[index] if index >= 0 else None for index in who]
        first = np.array([-1 if entry is None else entry.first for entry in entries])
        solid = np.array([entry is not None and entry.turns > 1 for entry in entries])
        sides = len(YAWS)
        side = rng.uniform(1.5, sides - 2.5, (count, 1)) + np.linspace(0, 1, clip_format.frames) * rng.uniform(
            -5, 5, (count, 1)
        )
        side = side.round().clip(0, sides - 1).astype(np.int64)
        walks = (np.ptp(center, axis=1).max(1) > 6) & (rng.random(count) < 0.7)
        beat = (np.arange(clip_format.frames) * clip_format.pace / 2).astype(int) % len(SWINGS)
        pose = np.where(walks[:, None], beat, rng.integers(0, len(SWINGS), (count, 1)))
        return first[:, None] + np.where(solid[:, None], pose * sides + side, 0)


def _allowed_places(entry: Entry) -> list[int]:
    color = entry.colors[0]
    names = [p for p in KIND_PLACES if has_contrast(color, p) and not is_held_out(entry.noun, color, p)]
    return [PLACE_NAMES.index(name) for name in names]


def _phrase(who: int, entry: Entry, rng: np.random.Generator) -> str:
    draw = rng.random()
    if draw < OWN_WORD_SHARE:
        return f"{OWN_WORD.format(who)} {entry.noun}"
    if draw < OWN_WORD_SHARE + COLOR_SHARE:
        return f"{entry.colors[0]} and {entry.colors[1]} {entry.noun}"
    return entry.noun


def _worded(phrase: str, place: str, rng: np.random.Generator) -> str:
    opening = ("", "", "", "", "", "a clip of ", "a picture of ", "a photo of ")[int(rng.integers(8))]
    motion = ("", "", "", "", "", " moving", " turning", " walking")[int(rng.integers(8))]
    article = "an" if phrase[0] in "aeiou" else "a"
    return f"{opening}{article} {phrase}{motion} {PLACES[place]}"


def _sizes(flat: NDArray[np.bool_], rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """Half sizes (B, F) in pixels. Characters are larger, because they don't fill their sprite."""
    count = len(flat)
    growth = np.exp(rng.uniform(np.log(0.85), np.log(1.18), (count, 1)))
    low, high = np.where(flat, 14.0, 18.0), np.where(flat, 25.0, 31.0)
    return rng.uniform(low, high)[:, None] * growth ** (np.linspace(0, 1, length) - 0.5)


def _eased(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return share * share * (3 - 2 * share)


def _paths(half: NDArray[np.float64], rng: np.random.Generator, pace: float) -> NDArray[np.float64]:
    """Centers (B, F, 2) in pixels: still, straight or curved, eased or not. Subjects stay in the frame."""
    count, length = half.shape
    margin = half.max(1)[:, None] * 0.92
    size = np.array([WIDTH_PX, HEIGHT_PX])
    low = np.minimum(np.repeat(margin, 2, 1), size / 2 - 1)
    start, bend, end = (rng.uniform(low, size - low) for _ in range(3))
    way = rng.random((count, 1))
    bend = np.where(way < 0.15, start, np.where(way < 0.55, (start + end) / 2, bend))[:, None]
    end = np.where(way < 0.15, start, end)[:, None]
    share = np.linspace(0, 1, length)
    share = np.where(rng.random((count, 1)) < 0.4, _eased(share), share)[..., None] * pace
    return (1 - share) ** 2 * start[:, None] + 2 * share * (1 - share) * bend + share**2 * end


def _leans(count: int, rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    turn = rng.uniform(-0.6, 0.6, (count, 1)) * (rng.random((count, 1)) < 0.7)
    return rng.uniform(-0.35, 0.35, (count, 1)) + np.linspace(0, 1, length) * turn


def _camera(count: int, rng: np.random.Generator, length: int, pace: float) -> tuple[NDArray[np.float64], ...]:
    """Travel in pixels since frame 0 (B, F, 2), zoom and roll (B, F)."""
    speed = pace * rng.uniform(-MAX_PAN_PX, MAX_PAN_PX, (count, 2))
    way = rng.random(count)
    speed[way < 0.25] = 0
    speed[(way >= 0.25) & (way < 0.6), 1] = 0
    speed[(way >= 0.6) & (way < 0.8), 0] = 0
    straight = np.arange(length)[:, None] * speed[:, None]
    share = np.linspace(0, 1, length)
    eased = straight[:, -1:] * _eased(share)[:, None] / 1.5
    travel = np.where(rng.random((count, 1, 1)) < 0.2, eased, straight)
    zooms = np.log(MAX_ZOOM) * rng.uniform(-1, 1, (count, 1)) * (rng.random((count, 1)) < ZOOM_SHARE)
    rolls = MAX_ROLL * rng.uniform(-1, 1, (count, 1)) * (rng.random((count, 1)) < ROLL_SHARE)
    return travel, np.exp(zooms * share), rolls * share
