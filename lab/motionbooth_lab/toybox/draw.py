"""Drawn clips of toybox's kinds: a moving, rotating figure in front of a background that the camera pans over.

Everything is drawn with a seeded generator. Captions name the figure's color, kind and place. Boxes, masks and the
camera path are exact, because the clip is drawn from them.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbooth_lab.toybox.backgrounds import CANVAS_PX, KIND_PLACES, MEAN_RGB, PLACES, Texture, draw_texture
from motionbooth_lab.toybox.figures import COLORS, KINDS, RGB, TOY_COLORS, Part, kind_parts, rasterize

WIDTH_PX, HEIGHT_PX, FRAMES, FPS = 96, 64, 8, 8
MAX_PAN_PX = 4.0
"""Fastest pan in pixels per frame."""


@dataclass(frozen=True)
class ClipFormat:
    """The length of clips and their frames a second. Subjects and cameras have the same speeds a second in all."""

    frames: int = FRAMES
    fps: int = FPS

    @property
    def pace(self) -> float:
        """Speed per frame, as a share of toybox's."""
        return FPS / self.fps


TOYBOX = ClipFormat()
WANTOY = ClipFormat(frames=9, fps=16)
"""Half a second: Wan has 16 frames a second and clips of 4k + 1 frames."""

TEXTURES_A_PLACE = 12
MIN_CONTRAST_LAB = 52.0
"""Minimum distance (CIE Lab) between the subject's color and the mean color of the background."""


@dataclass(frozen=True)
class Scene:
    """A figure (`parts`) with its phrase, its caption and its place."""

    phrase: str
    caption: str
    background: str
    parts: list[Part]


@dataclass(frozen=True)
class Clip:
    """A drawn clip of F frames with its ground truth.

    frames (F, H, W, 3) uint8 RGB; masks (F, H, W) uint8, 255 on the figure; boxes_xyxy (F, 4): bounds of the mask as
    shares of the frame, origin top left; camera_px (F, 2): travel of the camera, right and down.
    """

    scene: Scene
    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    boxes_xyxy: NDArray[np.float32]
    camera_px: NDArray[np.float32]


def is_held_out(kind: str, color: str, background: str) -> bool:
    """Whether the combination is excluded from training. One in eight is; each pair of its elements is not."""
    place = list(PLACES).index(background)
    return (KINDS.index(kind) + 3 * list(COLORS).index(color) + 5 * place) % 8 == 0


@cache
def has_contrast(color: str, background: str) -> bool:
    """Whether a subject of this color contrasts with this background."""
    return bool(np.linalg.norm(_lab(TOY_COLORS[color]) - _lab(MEAN_RGB[background])) >= MIN_CONTRAST_LAB)


def held_out_combinations() -> list[tuple[str, str, str]]:
    """All held-out (kind, color, background) with enough contrast, in a fixed order."""
    every = [(kind, color, place) for kind in KINDS for color in COLORS for place in KIND_PLACES]
    return [(k, c, p) for k, c, p in every if is_held_out(k, c, p) and has_contrast(c, p)]


def kind_scene(kind: str, color: str, background: str) -> Scene:
    """The scene "a {color} {kind} {place}", e.g. "a red ball on the road"."""
    phrase = f"{color} {kind}"
    caption = f"{_article(phrase)} {phrase} {PLACES[background]}"
    return Scene(phrase, caption, background, kind_parts(kind, COLORS[color]))


def draw_clip(
    scene: Scene, rng: np.random.Generator, max_pan_px: float = MAX_PAN_PX, clip_format: ClipFormat = TOYBOX
) -> Clip:
    """Draw the scene with a random path, size, rotation and camera pan from `rng`."""
    length = clip_format.frames
    half_px = rng.uniform(15.0, 24.0) * np.linspace(1.0, rng.uniform(0.85, 1.18), length)
    path_px = _random_path(half_px, rng, clip_format.pace)
    angle = rng.uniform(-0.35, 0.35) + np.linspace(0, rng.uniform(-0.6, 0.6), length) * (rng.random() < 0.7)
    flip = bool(path_px[-1, 0] < path_px[0, 0])
    camera_px = _random_camera(max_pan_px * clip_format.pace, rng, length)
    ground = _window(scene.background, camera_px, rng)
    frames, masks = [], []
    for index in range(length):
        x, y = path_px[index]
        color, cover = rasterize(
            scene.parts, (float(x), float(y)), float(half_px[index]), float(angle[index]), flip, (WIDTH_PX, HEIGHT_PX)
        )
        frames.append(ground[index] * (1 - cover) + color)
        masks.append(np.where(cover[..., 0] >= 0.5, 255, 0))
    mask_stack = np.stack(masks).astype(np.uint8)
    pixels = np.clip(np.stack(frames), 0, 255).round().astype(np.uint8)
    boxes = np.stack([mask_bounds(mask) for mask in mask_stack])
    return Clip(scene, pixels, mask_stack, boxes, camera_px.astype(np.float32))


def mask_bounds(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bounds x1 y1 x2 y2 of a mask (H, W) as shares of the frame. Raises ValueError for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size == 0:
        raise ValueError("the mask is empty")
    height, width = mask.shape
    return np.array(
        [columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height], np.float32
    )


def _lab(rgb: RGB) -> NDArray[np.float64]:
    pixel = np.asarray(rgb, np.float32).reshape(1, 1, 3) / 255
    return cv2.cvtColor(pixel, cv2.COLOR_RGB2LAB).reshape(3).astype(np.float64)


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _random_path(half_px: NDArray[np.float64], rng: np.random.Generator, pace: float) -> NDArray[np.float64]:
    """Centers (F, 2) in pixels: still, straight or curved, eased or not. The figure stays in the frame."""
    margin = half_px.max() * 0.9
    low = np.array([margin, min(margin, HEIGHT_PX / 2 - 1)])
    high = np.array([WIDTH_PX, HEIGHT_PX]) - low
    start, bend, end = rng.uniform(low, high, (3, 2))
    if rng.random() < 0.15:
        bend = end = start
    elif rng.random() < 0.5:
        bend = (start + end) / 2
    share = np.linspace(0, 1, len(half_px))[:, None]
    if rng.random() < 0.4:
        share = share * share * (3 - 2 * share)
    share = share * pace
    return (1 - share) ** 2 * start + 2 * share * (1 - share) * bend + share**2 * end


def _random_camera(max_pan_px: float, rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """Camera travel (F, 2) in pixels since frame 0: still, horizontal, vertical or both."""
    speed = rng.uniform(-max_pan_px, max_pan_px, 2)
    way = rng.random()
    if way < 0.25:
        speed[:] = 0
    elif way < 0.6:
        speed[1] = 0
    elif way < 0.8:
        speed[0] = 0
    travel = np.arange(length)[:, None] * speed
    if rng.random() < 0.2:  # eased at both ends, within the fastest pan
        share = np.linspace(0, 1, length)[:, None]
        travel = travel[-1] * share * share * (3 - 2 * share) / 1.5
    return travel


@cache
def _textures(background: str) -> list[Texture]:
    place = list(PLACES).index(background)
    return [draw_texture(background, np.random.default_rng([7, place, index])) for index in range(TEXTURES_A_PLACE)]


def _window(background: str, camera_px: NDArray[np.float64], rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """The background for each frame (H, W, 3) of the panning camera."""
    texture = _textures(background)[int(rng.integers(TEXTURES_A_PLACE))]
    if rng.random() < 0.5:
        texture = texture[:, ::-1]
    low = -np.minimum(camera_px.min(0), 0) + 1
    high = CANVAS_PX - 1 - np.array([WIDTH_PX, HEIGHT_PX]) - np.maximum(camera_px.max(0), 0)
    corner = rng.uniform(low, high)
    gain = rng.uniform(0.92, 1.08)
    views = []
    for x, y in corner + camera_px:
        shift = np.array([[1, 0, -x], [0, 1, -y]])
        view = cv2.warpAffine(np.ascontiguousarray(texture), shift, (WIDTH_PX, HEIGHT_PX), flags=cv2.INTER_LINEAR)
        views.append(np.clip(view.astype(np.float32) * gain, 0, 255))
    return views
