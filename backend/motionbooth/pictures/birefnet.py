"""Finds the subject with BiRefNet (Zheng et al., 2024), which segments what stands out in a picture, without a hint.

The network is its ONNX export, as `motionbooth models get birefnet` fetches it. Needs the extra motionbooth[birefnet].
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from motionbooth_protocol.errors import InvalidInput

from motionbooth.pictures.images import Mask, Rgb
from motionbooth.pictures.masks import Hint, surroundings

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

WEIGHTS = Path("onnx") / "model.onnx"  # in the folder of the model
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")  # the best first


class BirefnetFinder:
    """A Finder, which loads its weights for the first picture.

    The network itself takes no hint. With a box it is shown the box and its surroundings alone; with a point, the part
    of its mask that contains the point is the subject's, if there is one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _session(self) -> InferenceSession:
        return load_birefnet(self._folder)

    def __call__(self, rgb: Rgb, hint: Hint) -> Mask:
        mask = np.zeros(rgb.shape[:2], dtype=np.float32)
        part = (slice(None), slice(None)) if hint.box is None else surroundings(hint.box, *mask.shape)
        if not mask[part].size:
            return mask
        mask[part] = self._found_in(rgb[part])
        if hint.point is not None:
            mask = _part_at(mask, hint.point)
        return mask

    def _found_in(self, rgb: Rgb) -> np.ndarray:
        """(H, W) bool of a picture (H, W, 3)."""
        (given,) = self._session.get_inputs()
        height, width = given.shape[2:]
        is_smaller = height * width < rgb.shape[0] * rgb.shape[1]
        resized = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR)
        pixels = ((resized.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
        logits = self._session.run(None, {given.name: np.ascontiguousarray(pixels)})[-1]
        return cv2.resize(logits[0, 0].astype(np.float32), rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0


def load_birefnet(folder: Path) -> InferenceSession:
    """The network in `folder`. Raises InvalidInput if onnxruntime is not installed, or for other contents."""
    try:
        from onnxruntime import InferenceSession, get_available_providers
    except ImportError as error:
        raise InvalidInput("BiRefNet needs the package onnxruntime: pip install motionbooth[birefnet].") from error
    providers = [name for name in PROVIDERS if name in get_available_providers()]
    try:
        session = InferenceSession(folder / WEIGHTS, providers=providers)
        (given,) = session.get_inputs()
        _, channels, height, width = given.shape
        if channels != 3 or not isinstance(height, int) or not isinstance(width, int):
            raise ValueError(f"its input is {given.shape}")
    except Exception as error:  # onnxruntime's own, too
        raise InvalidInput("{path} is not BiRefNet's network. Fetch it again.", path=folder / WEIGHTS) from error
    return session


def _part_at(mask: Mask, point: tuple[float, float]) -> Mask:
    """The connected part of the mask at the point (shares of the sides); all of it if the point is outside it."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8))
    height, width = mask.shape
    label = labels[min(int(point[1] * height), height - 1), min(int(point[0] * width), width - 1)]
    return mask if label == 0 else (labels == label).astype(np.float32)
