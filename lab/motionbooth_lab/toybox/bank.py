"""The bank that clips are composed of: sprites of characters and kinds, and textures, kept on the device."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from motionbooth_lab.toybox.backgrounds import PLACES, Texture, draw_texture
from motionbooth_lab.toybox.characters import SWINGS, YAWS, Character, random_character, side_view
from motionbooth_lab.toybox.figures import COLORS, KINDS, TOY_COLORS, TOY_NOUNS, kind_parts, rasterize, toy_parts
from motionbooth_lab.toybox.tracer import render

SPRITE_PX = 64
TURNS = len(YAWS) * len(SWINGS)


@dataclass(frozen=True)
class Entry:
    """One subject of the bank.

    `first`: index of the first of its `turns` sprites (TURNS of them, grouped by pose, or 1 for a flat subject).
    `noun`, `colors`: its words in captions. `kind`: one of the eight kinds, whose captions name one color.
    """

    first: int
    turns: int
    noun: str
    colors: tuple[str, ...]
    kind: bool = False


@dataclass(frozen=True)
class Bank:
    """`sprites` (N, 4, 64, 64) uint8, RGB premultiplied by coverage, and coverage; `textures` (P, T, 3, S, S) uint8."""

    entries: list[Entry]
    sprites: Tensor
    textures: Tensor

    def to(self, device: torch.device | str) -> "Bank":
        return Bank(self.entries, self.sprites.to(device), self.textures.to(device))

    @property
    def kinds(self) -> list[int]:
        return [index for index, entry in enumerate(self.entries) if entry.kind]

    @property
    def others(self) -> list[int]:
        """Characters and flat toys, which have a word of their own in captions."""
        return [index for index, entry in enumerate(self.entries) if not entry.kind]


def build_bank(
    characters: int, toys: int, textures: int, seed: int, device: torch.device | str = "cpu", processes: int = 1
) -> Bank:
    """Draw the bank. The same seed gives the same bank. Draws about 70 sprites per second on one CPU core.

    `processes`: more than one draw the characters and the textures on the CPU.
    """
    entries: list[Entry] = []
    sheets: list[Tensor] = []
    drawn = 0
    for entry, sheet in _all_entries(characters, toys, seed, device, processes):
        entries.append(Entry(drawn, len(sheet), entry.noun, entry.colors, entry.kind))
        sheets.append(sheet)
        drawn += len(sheet)
    return Bank(entries, torch.cat(sheets), _textures(textures, seed, processes).to(device))


def character_of(seed: int, number: int) -> Character:
    """Character `number` of the training set with this seed."""
    return random_character(np.random.default_rng([seed, 1, number]))


def _all_entries(
    characters: int, toys: int, seed: int, device: torch.device | str, processes: int
) -> Iterator[tuple[Entry, Tensor]]:
    for kind in KINDS:
        for color, rgb in COLORS.items():
            yield Entry(0, 1, kind, (color,), kind=True), _flat(kind_parts(kind, rgb)).to(device)
    for number in range(toys):
        rng = np.random.default_rng([seed, 2, number])
        names = [str(name) for name in rng.choice(list(TOY_COLORS), int(rng.integers(2, 4)), replace=False)]
        parts = toy_parts([TOY_COLORS[name] for name in names], rng)
        yield Entry(0, 1, str(rng.choice(TOY_NOUNS)), tuple(names[:2])), _flat(parts).to(device)
    persons = [character_of(seed, number) for number in range(characters)]
    sheets = (sprites_of(person, device) for person in persons)
    if processes > 1:
        drawn = _in_processes(_character_sheet, [(seed, number) for number in range(characters)], processes)
        sheets = (torch.from_numpy(sheet).to(device) for sheet in drawn)
    for person, sheet in zip(persons, sheets, strict=True):
        yield Entry(0, TURNS, person.noun, person.colors), sheet


def _character_sheet(seed: int, number: int) -> NDArray[np.uint8]:
    torch.set_num_threads(1)
    return sprites_of(character_of(seed, number)).numpy()


def _in_processes(function: Callable[..., NDArray[np.uint8]], arguments: list[tuple], processes: int) -> list:
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return list(pool.map(function, *zip(*arguments, strict=True), chunksize=4))


def sprites_of(character: Character, device: torch.device | str = "cpu") -> Tensor:
    """Premultiplied sprites (TURNS, 4, 64, 64) uint8 of all sides in each pose."""
    turns = [side_view(yaw) for yaw in YAWS]
    solids = [character.fitted(swing) for swing in SWINGS]
    return torch.cat([premultiplied(render([solid], SPRITE_PX, device, turns)) for solid in solids])


def premultiplied(pictures: Tensor) -> Tensor:
    """Convert straight RGBA pictures (N, S, S, 4) uint8 to premultiplied ones (N, 4, S, S)."""
    rgba = pictures.permute(0, 3, 1, 2).float()
    return torch.cat([rgba[:, :3] * rgba[:, 3:] / 255, rgba[:, 3:]], 1).round().byte()


def _flat(parts: list) -> Tensor:
    half = SPRITE_PX / 2
    color, cover = rasterize(parts, (half, half), half * 0.96, 0.0, False, (SPRITE_PX, SPRITE_PX))
    rgba = np.concatenate([color, cover * 255], -1).round().clip(0, 255).astype(np.uint8)
    return torch.from_numpy(rgba).permute(2, 0, 1)[None]


def _textures(count: int, seed: int, processes: int) -> Tensor:
    wanted = [(place, [seed, 3, number, index]) for number, place in enumerate(PLACES) for index in range(count)]
    drawn = _in_processes(_texture, wanted, processes) if processes > 1 else [_texture(*each) for each in wanted]
    stacked = np.stack(drawn).reshape(len(PLACES), count, *drawn[0].shape)
    return torch.from_numpy(stacked).permute(0, 1, 4, 2, 3).contiguous()


def _texture(place: str, seed: list[int]) -> Texture:
    cv2.setNumThreads(1)
    return draw_texture(place, np.random.default_rng(seed))
