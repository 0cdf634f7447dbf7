"""Camera adherence: the optical flow of the scenery, compared with the flow that the camera's path asks for.

Flow is OpenCV's dense inverse search (Kroeger et al., 2016), used only where the scenery has texture: a clear sky or
stripes along the pan show no motion. The subjects are filled in first: the search would spread their motion over plain
scenery around them. The scenery's motion between two frames is the median over those pixels, so that flicker does
not count; the mean end-point error over them shows whether all of the scenery moves so, or only most of it. If the
camera does more than pan, each pixel has its own requested motion, and the median is of the end-point errors. On drawn
clips of toybox's backgrounds the median is off by 0.00 to 0.3 px a frame (0.07 in the mean), and the mean error is 0.1
to 0.6 px a frame, largest if only stars or tiles have texture.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from motionbooth_protocol.motion import CameraPath
from numpy.typing import NDArray

from motionbooth.control.homography import FAR, Background, background_of, inverse, mapped

MIN_SIDE_PX = 128
"""Smaller frames are enlarged to this before the search: its patches of 8 px are coarse for a frame of 64 px."""

MIN_CONTRAST = 8
"""Gray values are stretched to the scenery's own range, but no range smaller than this."""


TEXTURE_BLUR_PX, TEXTURE_PX = 1.5, 9
"""In pixels of the enlarged frame: the blur against noise, and the side of the squares in which texture is measured."""

MIN_GRADIENT = 0.2
"""Root mean square of the gradient in its weakest direction, in gray values a pixel. With it, 8 % (kitchen) to 98 %
(grass) of drawn backgrounds have texture, and plain frames with noise have none up to a standard deviation of 1.5."""

MIN_TEXTURE_SHARE = 0.04
"""Share of the scenery that must have texture; the flow of less is unreliable."""

INPAINT_PX = 3
"""How far around each hidden pixel its filling is taken from."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Flow:
    """Motion of N pixels of the scenery to the next frame. points (N, 2): where they are, in shares of the frame;
    motion (N, 2): in pixels, right and down."""

    points: Array
    motion: Array

    def __len__(self) -> int:
        return len(self.points)


def requested_flow_px(camera: CameraPath, width: int, height: int) -> NDArray[np.float64]:
    """(F - 1, 2): the content's motion in pixels from each frame to the next, opposite to the camera's."""
    travel = np.array([[offset.dx * width, offset.dy * height] for offset in camera.offsets])
    return -np.diff(travel, axis=0)


def requested_flows_px(camera: CameraPath, points: Iterable[Array], width: int, height: int) -> Iterator[Array]:
    """(N, 2) each: the content's motion in pixels at the points (N, 2) of each frame but the last, in shares of it."""
    if not camera.homographies:
        pans = requested_flow_px(camera, width, height)
        return (np.broadcast_to(pan, places.shape) for pan, places in zip(pans, points, strict=True))
    background = background_of(camera)
    return (_motion(background, frame, places) * (width, height) for frame, places in enumerate(points))


def _motion(background: Background, frame: int, points: Array) -> Array:
    """By how much points (N, 2) of a frame move to the next one, in shares of the frame."""
    places, background = torch.from_numpy(points), background.of_frames(slice(frame, frame + 2))
    maps = background.maps(background.shown_nearness(places)[0].expand(2, -1))
    step = maps[1] @ inverse(maps[0])
    return np.asarray(mapped(places, step[None])[0] - places).clip(-FAR, FAR)


def scenery_flows_px(frames: NDArray[np.uint8], subjects: Sequence[NDArray[np.bool_] | None]) -> Iterator[Flow]:
    """The flow of the scenery from each frame of a clip (F, H, W, 3) uint8 RGB to the next: F - 1 flows, in pixels.
    Each is computed when it is asked for: together, those of a long clip would take gigabytes.

    `subjects`: for each frame a mask (H, W) of pixels to ignore; None for no subject. A flow has the textured pixels of
    the enlarged frame; it is empty (N = 0) if there are too few.
    """
    size = frames.shape[1:3]
    return (
        _flow(frames[f], frames[f + 1], hidden_in_either(subjects[f], subjects[f + 1], (size[0], size[1])))
        for f in range(len(frames) - 1)
    )


def flow_error_px(found: NDArray[np.float64], requested: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,): end-point errors of two flows (N, 2), in pixels a frame."""
    return np.linalg.norm(found - requested, axis=-1)


def hidden_in_either(
    one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None, size: tuple[int, int]
) -> NDArray[np.bool_]:
    """The pixels of a subject in either frame, dilated because flow is blurred at edges."""
    both = np.zeros(size, np.uint8)
    for mask in (one, other):
        if mask is not None:
            both |= mask.astype(np.uint8)
    return cv2.dilate(both, np.ones((2 * _reach(size) + 1,) * 2, np.uint8)).astype(bool)


def without_edge(visible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the pixels at the frame's edge, where content enters and leaves."""
    reach = _reach((visible.shape[0], visible.shape[1])) + 1
    inside = np.zeros_like(visible)
    inside[reach:-reach, reach:-reach] = visible[reach:-reach, reach:-reach]
    return inside


def _reach(size: tuple[int, int]) -> int:
    """How far an edge blurs the flow around it, in pixels of a frame (H, W): 2 in a frame 96 wide."""
    return max(1, round(size[1] / 96 * 2))


def _flow(before: NDArray[np.uint8], after: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> Flow:
    scale = max(1.0, MIN_SIDE_PX / min(before.shape[:2]))

    def enlarged(frame: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
        return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=interpolation)

    gray = [_without_subjects(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), hidden) for frame in (before, after)]
    visible = enlarged(without_edge(~hidden).astype(np.uint8), cv2.INTER_NEAREST).astype(bool)
    textured = visible & _textured(enlarged(gray[0], cv2.INTER_CUBIC))
    if textured.sum() < max(1, MIN_TEXTURE_SHARE * visible.sum()):
        return Flow(np.zeros((0, 2)), np.zeros((0, 2)))
    large = [enlarged(frame, cv2.INTER_CUBIC) for frame in _stretched(gray, ~hidden)]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(large[0], large[1], None) / scale
    rows, columns = np.nonzero(textured)
    points = (np.stack([columns, rows], axis=1) + 0.5) / (textured.shape[1], textured.shape[0])
    return Flow(points, flow[textured].astype(np.float64))


def _without_subjects(gray: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The hidden pixels filled in from around them; the search would spread a subject's motion over a plain sky."""
    return np.asarray(cv2.inpaint(gray, hidden.astype(np.uint8), INPAINT_PX, cv2.INPAINT_TELEA))


def _textured(gray: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The pixels that show motion in any direction: the smaller eigenvalue of the structure tensor is large."""
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), TEXTURE_BLUR_PX)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    xx, xy, yy = (cv2.blur(product, (TEXTURE_PX, TEXTURE_PX)) for product in (dx * dx, dx * dy, dy * dy))
    smaller = (xx + yy - np.sqrt((xx - yy) ** 2 + 4 * xy**2)) / 2
    return smaller > MIN_GRADIENT**2


def _stretched(frames: list[NDArray[np.uint8]], visible: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
    """Gray frames with the scenery's range of values, common to both frames, stretched to 0..255."""
    if not visible.any():
        return frames
    low, high = np.percentile(np.concatenate([frame[visible] for frame in frames]), (1, 99))
    gain = 255 / max(high - low, MIN_CONTRAST)
    return [np.clip((frame - low) * gain, 0, 255).astype(np.uint8) for frame in frames]
