"""A picture as the guide: the clip's first frame, whose scenery moves along the camera's path in the others."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from motionbooth_protocol.motion import CameraPath
from numpy.typing import NDArray
from torch import Tensor

from motionbooth.control.guide import Regions

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
AROUND = 3  # pixels from which a subject's place in the picture is filled


def is_picture(path: Path) -> bool:
    """Whether a file begins as a JPEG, WebP or PNG does that is not animated."""
    with path.open("rb") as file:
        start = file.read(4096)
    is_still = start.startswith(b"\x89PNG") and b"acTL" not in start
    return is_still or start.startswith(b"\xff\xd8\xff") or start[8:12] == b"WEBP"


def moved_picture(picture: Picture, boxes: Tensor, camera: CameraPath) -> tuple[NDArray[np.uint8], Regions]:
    """The guide (F, H, W, 3) that starts with the picture, and its regions.

    boxes: (F, H, W), 0..1, the subjects' shares of the pixels. The first frame is kept outside the boxes. In the
    others, the scenery is the background; the boxes are free, and so is what the picture does not show.
    """
    height, width = picture.shape[:2]
    scenery = cv2.inpaint(picture, (boxes[0].numpy() > 0).astype(np.uint8), AROUND, cv2.INPAINT_TELEA)
    frames, shown = [picture], [np.ones((height, width), np.float32)]
    pixels = np.stack([*np.meshgrid(np.arange(width), np.arange(height)), np.ones((height, width))])
    for matrix in _in_pixels(camera, width, height)[1:]:
        frames.append(cv2.warpPerspective(scenery, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE))
        ahead = np.tensordot(np.linalg.inv(matrix)[2], pixels, 1) > 0  # not what was behind frame 0's camera
        shown.append(cv2.warpPerspective(shown[0], matrix, (width, height)) * ahead.astype(np.float32))
    first = torch.zeros_like(boxes)
    first[0] = 1
    scene = torch.from_numpy(np.stack(shown)) * (1 - boxes)
    return np.stack(frames), Regions(boxes * first, scene * (1 - first), scene * first)


def _in_pixels(camera: CameraPath, width: int, height: int) -> NDArray[np.float64]:
    """The homographies (F, 3, 3) from frame 0 to each frame, for pixels whose centers are whole numbers from 0 on."""
    pans = [((1.0, 0.0, -each.dx), (0.0, 1.0, -each.dy), (0.0, 0.0, 1.0)) for each in camera.offsets]
    to_pixels = np.array([(width, 0, -0.5), (0, height, -0.5), (0, 0, 1)])
    return to_pixels @ np.array(camera.homographies or pans) @ np.linalg.inv(to_pixels)
