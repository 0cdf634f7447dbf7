"""Subject identification: a small embedding network, trained on other characters, matches crops to subjects' pictures.

A crop may also show no subject: decoys (blobs in each subject's mean color, and its shuffled patches) are candidates,
too, and a crop that is most similar to one of them is identified as none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

CROP_PX = 48
MARGIN = 1.12
"""The side of a crop, as a multiple of the larger side of the box."""
EMBEDDING = 96
NO_SUBJECT = ""
"""The name of the result that a crop shows none of the subjects."""
WEIGHTS = "identity.safetensors"
PATCHES = 6
"""Shuffled decoys are cut into PATCHES x PATCHES patches."""

LUMA = (0.299, 0.587, 0.114)


class IdentityNetwork(nn.Sequential):
    """Crops (N, 3, 48, 48) in -1..1 -> embeddings (N, 96) of length 1; about 290,000 parameters."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 5, stride=2, padding=2),
            nn.GroupNorm(8, 32),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.GroupNorm(8, 64),
            nn.SiLU(),
            nn.Conv2d(64, 96, 3, padding=1),
            nn.GroupNorm(8, 96),
            nn.SiLU(),
            nn.Conv2d(96, 128, 3, stride=2, padding=1),
            nn.GroupNorm(8, 128),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128 * 9, EMBEDDING),
        )

    def forward(self, crops: Tensor) -> Tensor:
        return F.normalize(super().forward(crops), dim=-1)


@dataclass(frozen=True)
class Gallery:
    """A subject's own pictures as crops (n, 48, 48, 3) uint8, and `decoys` (m, 48, 48, 3) without a subject."""

    pictures: NDArray[np.uint8]
    decoys: NDArray[np.uint8]


def gallery_of(pictures: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.uint8]]) -> Gallery:
    """The gallery of a subject's pictures (H, W, 3) uint8 RGB with masks (H, W) of 0 or 255."""
    boxes = [bounds(mask) for mask in masks]
    blobs = [np.where(mask[..., None] > 127, mean_color(p, mask), p) for p, mask in zip(pictures, masks, strict=True)]
    crops = np.stack([crop(picture, box) for picture, box in zip(pictures, boxes, strict=True)])
    flat = np.stack([crop(blob.astype(np.uint8), box) for blob, box in zip(blobs, boxes, strict=True)])
    shuffled = np.stack([shuffled_patches(each, seed) for seed, each in enumerate(crops)])
    return Gallery(crops, np.concatenate([flat, shuffled]))


def crop(frame: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """(48, 48, 3): the square around the box (in shares of the frame (H, W, 3)) with a margin, aspect kept."""
    height, width = frame.shape[:2]
    x, y = box.center[0] * width, box.center[1] * height
    scale = CROP_PX / (max((box.x2 - box.x1) * width, (box.y2 - box.y1) * height, 4.0) * MARGIN)
    if scale < 1:  # shrink by areas first, so that nothing aliases
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        x, y, scale = x * size[0] / width, y * size[1] / height, 1.0
    place = np.array([[scale, 0, CROP_PX / 2 - x * scale], [0, scale, CROP_PX / 2 - y * scale]])
    size = (CROP_PX, CROP_PX)
    return cv2.warpAffine(frame, place, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def bounds(mask: NDArray[np.uint8]) -> Box:
    """The box around a mask (H, W) of 0 or 255, in shares of the frame. Raises ValueError if the mask is empty."""
    rows, columns = np.nonzero((mask > 127).any(1))[0], np.nonzero((mask > 127).any(0))[0]
    if not len(rows):
        raise ValueError("This mask covers nothing, so there is no subject to crop.")
    height, width = mask.shape
    edges = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    return Box(*map(float, edges))


def mean_color(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3,): the mean color of the masked pixels."""
    return picture[mask > 127].mean(0).round().astype(np.uint8)


def shuffled_patches(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The square picture (S, S, 3), cut into 6 x 6 patches in random order."""
    side = pixels.shape[0] // PATCHES
    kept = pixels[: side * PATCHES, : side * PATCHES]
    patches = kept.reshape(PATCHES, side, PATCHES, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    mixed = patches[np.random.default_rng(seed).permutation(len(patches))]
    return mixed.reshape(PATCHES, PATCHES, side, side, 3).swapaxes(1, 2).reshape(kept.shape)


def in_gray(pixels: Tensor) -> Tensor:
    """The luma of pixels (N, 3, H, W), in three equal channels."""
    weights = torch.tensor(LUMA).to(pixels)[:, None, None]
    return (pixels * weights).sum(-3, keepdim=True).expand_as(pixels)


@cache
def load_network() -> IdentityNetwork:
    """The trained network of this package."""
    network = IdentityNetwork()
    stored = load(files("motionbooth_lab.toybox").joinpath(WEIGHTS).read_bytes())
    network.load_state_dict({name: value.float() for name, value in stored.items()})
    return network.eval().requires_grad_(False)


@torch.no_grad()
def embed(crops: NDArray[np.uint8], gray: bool = False) -> NDArray[np.float32]:
    """Embeddings (n, 96) of length 1 of crops (n, 48, 48, 3) uint8; `gray`: without their colors."""
    pixels = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
    found: NDArray[np.float32] = load_network()(in_gray(pixels) if gray else pixels).numpy()
    return found


def identify(
    crops: NDArray[np.uint8], galleries: Mapping[str, Gallery], gray: bool = False
) -> list[list[tuple[str, float]]]:
    """For each crop (n, 48, 48, 3) uint8: the galleries' names and NO_SUBJECT with their similarity, largest first.

    The similarity is the largest cosine with one of the subject's pictures; for NO_SUBJECT, with any subject's decoy.
    """
    embeddings = embed(crops, gray)
    names = [*galleries, NO_SUBJECT]
    decoys = np.concatenate([gallery.decoys for gallery in galleries.values()])
    candidates = [*(gallery.pictures for gallery in galleries.values()), decoys]
    similarity = np.stack([(embeddings @ embed(pictures, gray).T).max(1) for pictures in candidates], 1)
    order = np.argsort(-similarity, axis=1, kind="stable")
    return [[(names[index], float(row[index])) for index in best] for row, best in zip(similarity, order, strict=True)]


def top_1(
    crops: NDArray[np.uint8], name: str, galleries: Mapping[str, Gallery], gray: bool = False, forced: bool = False
) -> list[bool]:
    """For each crop, whether it is identified as the subject `name`. `forced`: NO_SUBJECT is not a candidate."""
    rankings = identify(crops, galleries, gray)
    return [next(who for who, _ in ranking if who or not forced) == name for ranking in rankings]
