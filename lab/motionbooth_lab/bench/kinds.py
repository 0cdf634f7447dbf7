"""A small classifier of the bundled models' eight kinds, trained on drawn clips that are encoded and decoded."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from motionbooth.models.base import Base
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray
from torch import Tensor, nn

from motionbooth_lab.bench.identity import through_codec
from motionbooth_lab.toybox.backgrounds import PLACES
from motionbooth_lab.toybox.draw import FRAMES, Scene, draw_clip, has_contrast, is_held_out, kind_scene
from motionbooth_lab.toybox.figures import COLORS, KINDS

CROP_PX = 32
TRAINING_CLIPS, FRAMES_OF_CLIP, EPOCHS, BATCH = 480, 3, 8, 64
MARGIN = 1.15
"""Size of the crop relative to the subject's box."""


class KindClassifier:
    """Classifies the subject inside a box."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @classmethod
    def train(cls, base: Base, seed: int = 5) -> "KindClassifier":
        """Train on drawn clips of combinations that are not held out. Takes less than a minute."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = _network()
            crops, kinds = _crops(base, np.random.default_rng(seed))
            optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
            for _ in range(EPOCHS):
                for chosen in torch.randperm(len(crops)).split(BATCH):
                    loss = F.cross_entropy(network(crops[chosen]), kinds[chosen])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
        return cls(network.eval())

    @torch.no_grad()
    def kind(self, frames: NDArray[np.uint8], boxes: list[Box]) -> str:
        """The most likely kind over all frames (n, H, W, 3) with the subject at `boxes`."""
        crops = torch.stack([_crop(frame, box) for frame, box in zip(frames, boxes, strict=True)])
        return KINDS[int(self._network(crops).log_softmax(-1).mean(0).argmax())]


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64 * (CROP_PX // 8) ** 2, len(KINDS)),
    )


@torch.no_grad()
def _crops(base: Base, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(N, 3, CROP_PX, CROP_PX) crops of decoded frames and the (N,) indices of their kinds."""
    # In one piece: small tensors that are kept between the codec's large ones made glibc's heap grow to gigabytes.
    crops = torch.zeros(TRAINING_CLIPS, FRAMES_OF_CLIP, 3, CROP_PX, CROP_PX)
    kinds = []
    for row in crops:
        scene, kind = _random_kind(rng)
        clip = draw_clip(scene, rng)
        shown = [0, FRAMES // 2, FRAMES - 1]
        pixels = np.concatenate([through_codec(base, clip.frames[f : f + 1]) for f in shown])
        for place, frame, box in zip(row, pixels, clip.boxes_xyxy[shown], strict=True):
            jittered = box + rng.uniform(-0.02, 0.02, 4)
            place.copy_(_crop(frame, Box(*map(float, jittered))))
            kinds.append(KINDS.index(kind))
    return crops.flatten(0, 1), torch.tensor(kinds)


def _random_kind(rng: np.random.Generator) -> tuple[Scene, str]:
    while True:
        kind, color, place = (str(rng.choice(list(names))) for names in (KINDS, COLORS, PLACES))
        if has_contrast(color, place) and not is_held_out(kind, color, place):
            return kind_scene(kind, color, place), kind


def _crop(frame: NDArray[np.uint8], box: Box) -> Tensor:
    """The box with a margin as a square (3, CROP_PX, CROP_PX) in -1..1, keeping the aspect ratio."""
    height, width = frame.shape[:2]
    x, y = box.center[0] * width, box.center[1] * height
    side = max((box.x2 - box.x1) * width, (box.y2 - box.y1) * height, 4.0) * MARGIN
    scale = CROP_PX / side
    place = np.array([[scale, 0, CROP_PX / 2 - x * scale], [0, scale, CROP_PX / 2 - y * scale]])
    small = cv2.warpAffine(frame, place, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(small).permute(2, 0, 1).float() / 127.5 - 1
