"""Judge whether generated pictures show characters of the bank: who is it, and is it the face?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray
from torch import Tensor, nn

from motionbooth_lab.toybox.autoencoder import LATENT_CHANNELS, latents_of_pixels, linear_inverse
from motionbooth_lab.toybox.bank import SPRITE_PX, TURNS, Bank, character_of
from motionbooth_lab.toybox.batches import Words
from motionbooth_lab.toybox.body_parts import DARK, EYE_WHITE
from motionbooth_lab.toybox.characters import SWINGS, YAWS, side_view
from motionbooth_lab.toybox.compose import compose
from motionbooth_lab.toybox.denoiser_stage import Denoiser
from motionbooth_lab.toybox.identity import crop, gallery_of, identify
from motionbooth_lab.toybox.network import build_scheduler
from motionbooth_lab.toybox.scenes import OWN_WORD, SceneMaker, Scenes
from motionbooth_lab.toybox.sheets import as_frames, sample
from motionbooth_lab.toybox.tracer import render

PEOPLE = 20
"""The characters that are judged."""

DRAWN = 1000
"""Scenes that are drawn at a time to find some of these characters with their own words."""

FACE_PX = 14
"""Least pixels of eyes (of 64 x 64) of a side that shows the face."""

GROWN = 7
"""Pixels by which the eyes are grown to the region of the face."""

MOVED = 3
"""Pixels by which a face may be out of place, because characters lean a little."""

SHOWN = 16
"""Pictures in a row of the contact sheet."""


@dataclass(frozen=True)
class Codec:
    """Which channels of toybox's latents there are, and the factor of each."""

    channels: tuple[int, ...]
    gains: tuple[float, ...]

    def latents_of(self, latents: Tensor) -> Tensor:
        """These of toybox's latents (B, 12, ...)."""
        return (latents[:, list(self.channels)] * self._gains(latents)).contiguous()

    def full(self, latents: Tensor) -> Tensor:
        """Toybox's latents (B, 12, F, h, w), with zeros for channels that are not there."""
        full = latents.new_zeros(len(latents), LATENT_CHANNELS, *latents.shape[2:])
        full[:, list(self.channels)] = latents / self._gains(latents)
        return full

    def _gains(self, latents: Tensor) -> Tensor:
        return latents.new_tensor(self.gains).reshape(-1, *[1] * (latents.dim() - 2))


class Judge:
    """Pictures of some of the bank's characters in scenes of its own, and what is measured on generated ones."""

    def __init__(self, bank: Bank, words: Words, seed: int, pictures: int) -> None:
        self._bank, self._words = bank, words
        people = [number for number, entry in enumerate(bank.entries) if entry.turns == TURNS]
        self._faces: dict[int, NDArray[np.bool_]] = {}
        for who in people:
            faces = faces_of(seed, who - people[0])
            if faces.any((1, 2)).sum() > TURNS // 4:  # vehicles have none
                self._faces[who] = faces
            if len(self._faces) == PEOPLE:
                break
        self._who, scenes = self._cast(SceneMaker(bank), np.random.default_rng([seed, 97]), pictures)
        self._composed = compose(scenes, bank)
        self._worded = words(scenes.captions, scenes.phrases)
        self._boxes = [Box(*map(float, box)) for box in self._composed.boxes[:, 0].cpu()]
        self.pictures = as_frames(self._composed.pixels)
        self._galleries = {str(who): gallery_of(*self._sides(who)) for who in self._faces}

    def _cast(self, maker: SceneMaker, rng: np.random.Generator, count: int) -> tuple[list[int], Scenes]:
        """So many scenes of these characters with their own words, and who they show."""
        who: list[int] = []
        parts: list[dict[str, Any]] = []
        while len(who) < count:
            scenes = maker.draw(DRAWN, 1, rng)
            words = {OWN_WORD.format(each): each for each in self._faces}
            named = [(row, words.get(phrase.split(" ")[0])) for row, phrase in enumerate(scenes.phrases)]
            rows = [row for row, found in named if found is not None][: count - len(who)]
            who += [found for _, found in named if found is not None][: len(rows)]
            parts.append({name: np.asarray(value)[rows] for name, value in vars(scenes).items()})
        chosen = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        texts = {name: list(map(str, chosen[name])) for name in ("captions", "phrases")}
        return who, Scenes(**{**chosen, **texts})

    def _sides(self, who: int) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
        """The character's pictures on gray, of the sides that show its face, and their masks."""
        first = self._bank.entries[who].first
        sprites = (
            self._bank.sprites[first : first + TURNS][torch.from_numpy(self._faces[who].any((1, 2)))].cpu().numpy()
        )
        cover = sprites[:, 3]
        pictures = sprites[:, :3].transpose(0, 2, 3, 1) + (128 * (1 - cover[..., None] / 255)).round().astype(np.uint8)
        return list(pictures.astype(np.uint8)), [np.where(each > 127, 255, 0).astype(np.uint8) for each in cover]

    @torch.no_grad()
    def generated(self, denoiser: Denoiser, codec: Codec, decoder: nn.Module) -> NDArray[np.uint8]:
        """Pictures (N, H, W, 3) of the prompts, with the attention edit at the boxes."""
        device = self._composed.boxes.device
        ids, empty = self._worded.ids.to(device), self._words.empty.to(device)
        latents = sample(denoiser, build_scheduler(), ids, empty, self._composed.boxes, self._worded, 1)
        return as_frames(decoder(codec.full(latents)[:, :, 0]))

    @torch.no_grad()
    def through(self, codec: Codec, decoder: nn.Module | None) -> NDArray[np.uint8]:
        """The drawn pictures, encoded and decoded; by the linear inverse if there is no `decoder`."""
        latents = codec.full(codec.latents_of(latents_of_pixels(self._composed.pixels))[:, :, None])[:, :, 0]
        return as_frames(linear_inverse(latents) if decoder is None else decoder(latents))

    def judged(self, frames: NDArray[np.uint8]) -> dict[str, float]:
        """`who`, `who_gray`: share that the identity network recognizes, of 20 characters and none. `face`: mean
        correlation of the face with that of the best matching side.
        """
        crops = np.stack([crop(frame, box) for frame, box in zip(frames, self._boxes, strict=True)])
        names = [str(each) for each in self._who]

        def recognized(gray: bool) -> float:
            found = [ranking[0][0] for ranking in identify(crops, self._galleries, gray)]
            return round(float(np.mean([name == own for name, own in zip(found, names, strict=True)])), 3)

        return {"who": recognized(False), "who_gray": recognized(True), "face": self.faces(frames, self._who)}

    def chance(self, frames: NDArray[np.uint8]) -> float:
        """`face` of pictures that show the next one of the characters instead."""
        people = list(self._faces)
        return self.faces(frames, [people[(people.index(who) + 1) % len(people)] for who in self._who])

    def faces(self, frames: NDArray[np.uint8], who: Sequence[int]) -> float:
        found = [self._face(*each) for each in zip(frames, self._boxes, who, strict=True)]
        return round(float(np.mean(found)), 3)

    def _face(self, frame: NDArray[np.uint8], box: Box, who: int) -> float:
        first = self._bank.entries[who].first
        sprites, faces = self._bank.sprites[first : first + TURNS].cpu().numpy(), self._faces[who]

        def compared(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            return cut(frame, box, sprites[side, 3] > 127), sprites[side, :3].transpose(1, 2, 0).astype(np.float64)

        sides = np.flatnonzero(faces.any((1, 2)))
        best = max(sides, key=lambda side: correlation(*compared(side), sprites[side, 3] > 127))
        return matching(*compared(best), faces[best])


def faces_of(seed: int, number: int) -> NDArray[np.bool_]:
    """(TURNS, 64, 64): the region around the eyes of each side of a character; empty if it shows too little of them."""
    character = character_of(seed, number)
    turns = [side_view(yaw) for yaw in YAWS]
    found = []
    for swing in SWINGS:
        solid = character.fitted(swing)
        marked = [replace(part, rgb=(255, 0, 255)) if part.rgb in (DARK, EYE_WHITE) else part for part in solid]
        plain, other = (render([each], SPRITE_PX, "cpu", turns).numpy().astype(int) for each in (solid, marked))
        found.append(np.abs(plain - other).max(-1) > 60)
    eyes = np.concatenate(found)
    kernel = np.ones((GROWN, GROWN), np.uint8)
    enough = (eyes.sum((1, 2)) >= FACE_PX) & (character.family != "vehicle")
    grown = np.stack([cv2.dilate(each.astype(np.uint8), kernel) > 0 for each in eyes])
    return grown & enough[:, None, None]


def cut(frame: NDArray[np.uint8], box: Box, cover: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(64, 64, 3): the frame with its box where the figure is in its sprite."""
    rows, columns = np.nonzero(cover.any(1))[0], np.nonzero(cover.any(0))[0]
    height, width = frame.shape[:2]
    x_scale = (columns[-1] + 1 - columns[0]) / ((box.x2 - box.x1) * width)
    y_scale = (rows[-1] + 1 - rows[0]) / ((box.y2 - box.y1) * height)
    place = np.array(
        [[x_scale, 0, columns[0] - box.x1 * width * x_scale], [0, y_scale, rows[0] - box.y1 * height * y_scale]]
    )
    size = (SPRITE_PX, SPRITE_PX)
    return cv2.warpAffine(frame, place, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(float)


def correlation(one: NDArray[np.float64], other: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    """Pearson's correlation of the pixels (H, W, 3) in a region."""
    a, b = (each[where] - each[where].mean() for each in (one, other))
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9))


def matching(one: NDArray[np.float64], other: NDArray[np.float64], where: NDArray[np.bool_]) -> float:
    """The largest correlation of a region of `other` with `one`, which may be moved by up to MOVED pixels."""
    edge = cv2.copyMakeBorder(one, MOVED, MOVED, MOVED, MOVED, cv2.BORDER_REPLICATE)
    height, width = where.shape
    places = [(y, x) for y in range(2 * MOVED + 1) for x in range(2 * MOVED + 1)]
    return max(correlation(edge[y : y + height, x : x + width], other, where) for y, x in places)


def write_sheet(path: Path, drawn: NDArray[np.uint8], rows: Iterable[NDArray[np.uint8]]) -> None:
    """The first drawn pictures, and below them each recipe's of the same prompts and boxes."""
    images = [np.concatenate(list(each[:SHOWN]), 1) for each in (drawn, *rows)]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(images, 0), cv2.COLOR_RGB2BGR))
