"""The identity figures of `bench control`: is the subject recognized among twenty, and are blobs and patches not?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from motionbooth.bench.measures import Measure
from motionbooth.generation.sampling import decode
from motionbooth.models.base import Base
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray

from motionbooth_lab.bench.subjects import TrainingSet, gallery_fillers
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_lab.toybox.draw import HEIGHT_PX, WIDTH_PX
from motionbooth_lab.toybox.identity import (
    Gallery,
    bounds,
    crop,
    embed,
    gallery_of,
    mean_color,
    shuffled_patches,
    top_1,
)

GALLERIES = 20
CONTROLS = ("top1_ceiling", "grey_ceiling", "blob_top1", "blob_top1_forced", "shuffled_top1")
CODEC_PX, CODEC_SUBJECT_PX = 64, 60

Clip = tuple[NDArray[np.uint8], Sequence[Box]]
"""Frames (F, H, W, 3) and the requested boxes."""


@dataclass(frozen=True)
class Identity:
    """Recognition of one subject. `hits`: by figure, whether each crop was recognized.

    `ends` (clips, 2, D): embeddings of the first and last frame of each clip.
    """

    hits: Mapping[str, list[bool]]
    ends: NDArray[np.float32]


def galleries_of(subjects: Sequence[TrainingSet]) -> dict[str, Gallery]:
    """The galleries of the subjects, filled up to twenty with other characters."""
    everyone = [*subjects, *gallery_fillers(max(0, GALLERIES - len(subjects)))]
    return {each.name: gallery_of(each.pictures, each.masks) for each in everyone}


def identity_of(
    base: Base, subject: TrainingSet, galleries: Mapping[str, Gallery], clips: Sequence[Clip], untrained: Sequence[Clip]
) -> Identity:
    """`clips` show the trained subject; `untrained` are the same prompts and boxes with the base model."""
    crops, off = _crops(clips), _crops(untrained)
    hits = {
        "top1": top_1(crops, subject.name, galleries),
        "grey_top1": top_1(crops, subject.name, galleries, gray=True),
        "top1_forced": top_1(crops, subject.name, galleries, forced=True),
        "top1_off": top_1(off, subject.name, galleries),
    }
    ends = np.stack([embed(_crops([(frames[[0, -1]], [boxes[0], boxes[-1]])])) for frames, boxes in clips])
    return Identity({**hits, **controls_of(base, subject, galleries, [boxes for _, boxes in clips])}, ends)


def controls_of(
    base: Base, subject: TrainingSet, galleries: Mapping[str, Gallery], tracks: Sequence[Sequence[Box]]
) -> dict[str, list[bool]]:
    """Hits of controls: what the figures would be for other content in the same boxes, encoded and decoded.

    `_ceiling`: the subject's own pictures, each compared with a gallery without it, in color and in gray. `blob_`:
    blobs of its mean color. `shuffled_`: its patches shuffled. `_forced`: "none of them" is not a valid answer, so a
    blob is assigned to the subject with the closest color.
    """
    hits: dict[str, list[bool]] = {name: [] for name in CONTROLS}
    for number, (picture, mask) in enumerate(zip(subject.pictures, subject.masks, strict=True)):
        boxes = [track[(2 * number) % len(track)] for track in tracks]
        rest = {**galleries, subject.name: _without(galleries[subject.name], number)}
        flat = np.broadcast_to(mean_color(picture, mask), picture.shape).astype(np.uint8)
        real = _seen(base, subject, picture, mask, boxes)
        blobs = np.concatenate([_seen(base, subject, flat, each, boxes) for each in (mask, _ellipse(mask))])
        mixed = np.stack([shuffled_patches(each, 100 + index) for index, each in enumerate(real)])
        hits["top1_ceiling"] += top_1(real, subject.name, rest)
        hits["grey_ceiling"] += top_1(real, subject.name, rest, gray=True)
        hits["blob_top1"] += top_1(blobs, subject.name, rest)
        hits["blob_top1_forced"] += top_1(blobs, subject.name, rest, forced=True)
        hits["shuffled_top1"] += top_1(mixed, subject.name, rest)
    return hits


def identity_measures(identities: Sequence[Identity]) -> list[Measure]:
    """Shares of recognized crops over all subjects, and how much more similar the ends of a clip are than chance."""
    names = identities[0].hits
    shares = {name: float(np.mean([hit for each in identities for hit in each.hits[name]])) for name in names}
    steady = [float(ends[0] @ ends[1]) for each in identities for ends in each.ends]
    chance = [
        float((a.ends[:, 0] @ b.ends[:, 1].T).mean())
        for a in identities
        for b in identities
        if a is not b  # one subject alone has no others to compare with
    ]
    return [
        *[Measure(f"identity_{name}", share, "0..1") for name, share in shares.items()],
        Measure("identity_steady", float(np.mean(steady) - (np.mean(chance) if chance else 0.0)), "cosine over chance"),
    ]


def codec_db(base: Base, subjects: Sequence[TrainingSet]) -> Measure:
    """Peak signal-to-noise ratio of the subjects' pixels (60 px in size) after encoding and decoding."""
    found = []
    for subject in subjects:
        for picture, mask in zip(subject.pictures, subject.masks, strict=True):
            frame, cover = pasted(np.full((CODEC_PX, CODEC_PX, 3), 128, np.uint8), picture, mask, _square_box())
            error = (through_codec(base, frame[None])[0].astype(np.float64) - frame)[cover > 0.5]
            found.append(10 * np.log10(255**2 / max(float((error**2).mean()), 1e-6)))
    return Measure("codec_db", float(np.mean(found)), "dB")


@torch.no_grad()
def through_codec(base: Base, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames (F, H, W, 3), encoded and decoded by the model."""
    return decode(base, encode(base, frames))[0].numpy()


@torch.no_grad()
def encode(base: Base, frames: NDArray[np.uint8]) -> torch.Tensor:
    """Latents (1, C, F, h, w) of frames (F, H, W, 3)."""
    pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1).to(base.vae.device, base.vae.dtype)
    return base.encode(pixels)[0][None]


def pasted(
    ground: NDArray[np.uint8], picture: NDArray[np.uint8], mask: NDArray[np.uint8], box: Box
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The ground (H, W, 3) with the masked subject pasted into `box`, aspect ratio kept; and its coverage (H, W)."""
    height, width = ground.shape[:2]
    own = bounds(mask)
    rows, columns = mask.shape
    x1, y1, x2, y2 = (round(edge * size) for edge, size in zip(own.as_tuple(), (columns, rows) * 2, strict=True))
    scale = min((box.x2 - box.x1) * width / (x2 - x1), (box.y2 - box.y1) * height / (y2 - y1))
    size = max(round((x2 - x1) * scale), 1), max(round((y2 - y1) * scale), 1)
    cut = mask[y1:y2, x1:x2].astype(np.float32)[..., None] / 255
    painted = picture[y1:y2, x1:x2] * cut
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small, cover = cv2.resize(painted, size, interpolation=method), cv2.resize(cut, size, interpolation=method)
    left = round(box.center[0] * width - size[0] / 2)
    top = round(box.center[1] * height - size[1] / 2)
    place = np.array([[1, 0, left], [0, 1, top]], np.float64)
    layer = cv2.warpAffine(small, place, (width, height), flags=cv2.INTER_NEAREST)
    where = cv2.warpAffine(cover, place, (width, height), flags=cv2.INTER_NEAREST).astype(np.float32)
    frame = ground * (1 - where[..., None]) + layer
    return frame.round().clip(0, 255).astype(np.uint8), where


def _seen(
    base: Base, subject: TrainingSet, picture: NDArray[np.uint8], mask: NDArray[np.uint8], boxes: Sequence[Box]
) -> NDArray[np.uint8]:
    """Crops (n, 48, 48, 3) of the subject pasted into each box in one of its places, encoded and decoded."""
    frames = []
    for number, box in enumerate(boxes):
        place = subject.places[number % len(subject.places)]
        ground = draw_texture(place, np.random.default_rng([37, number]))[:HEIGHT_PX, :WIDTH_PX]
        frames.append(through_codec(base, pasted(ground, picture, mask, box)[0][None])[0])
    return _crops([(np.stack(frames), boxes)])


def _crops(clips: Sequence[Clip]) -> NDArray[np.uint8]:
    return np.stack([crop(frame, box) for frames, boxes in clips for frame, box in zip(frames, boxes, strict=True)])


def _without(gallery: Gallery, number: int) -> Gallery:
    """The gallery without one picture and its decoys."""
    count = len(gallery.pictures)
    kept = np.arange(count) != number
    return replace(gallery, pictures=gallery.pictures[kept], decoys=gallery.decoys[np.tile(kept, 2)])


def _ellipse(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A filled ellipse within the bounds of a mask."""
    x1, y1, x2, y2 = (edge * size for edge, size in zip(bounds(mask).as_tuple(), mask.shape[::-1] * 2, strict=True))
    filled = np.zeros_like(mask)
    middle, axes = (round((x1 + x2) / 2), round((y1 + y2) / 2)), (round((x2 - x1) / 2), round((y2 - y1) / 2))
    return cv2.ellipse(filled, middle, axes, 0, 0, 360, 255, -1).astype(np.uint8)


def _square_box() -> Box:
    margin = (CODEC_PX - CODEC_SUBJECT_PX) / 2 / CODEC_PX
    return Box(margin, margin, 1 - margin, 1 - margin)
