"""The animator's input as numbers: boxes, the camera path, a shot. No bpy, no torch.

Coordinates are shares of the *model's frame*, the frame of the generated clip: origin top left, x to the right, y down,
0..1 across the frame. `Shot.model_frame` is the place of that frame in the finished one. A box may extend outside the
frame; one that is entirely outside is `None` in a track.
"""

from __future__ import annotations

import math
import struct
from typing import Annotated

from msgspec import Meta, Struct

from .limits import MAX_FRAMES, MAX_NAME, MAX_SCENE_FRAMES, MAX_SUBJECTS
from .printable import PRINTABLE

Share = Annotated[float, Meta(ge=-100.0, le=100.0)]
Row = tuple[Share, Share, Share]
Homography = tuple[Row, Row, Row]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=PRINTABLE)]
Short = Annotated[str, Meta(max_length=MAX_NAME, pattern=PRINTABLE)]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Box(Struct, frozen=True, array_like=True, gc=False):
    """An axis-aligned rectangle (x1, y1, x2, y2) in shares of the frame, x1 < x2 and y1 < y2."""

    x1: Share
    y1: Share
    x2: Share
    y2: Share

    def __post_init__(self) -> None:
        if -math.inf < self.x1 < self.x2 < math.inf and -math.inf < self.y1 < self.y2 < math.inf:
            return  # the others only for the message: a shot has thousands of boxes
        if not all(map(math.isfinite, self.as_tuple())):
            raise ValueError(f"a box needs finite numbers, got {self.as_tuple()}")
        raise ValueError(f"a box needs x1 < x2 and y1 < y2, got {self.as_tuple()}")

    def as_tuple(self) -> tuple[float, float, float, float]:
        return (self.x1, self.y1, self.x2, self.y2)

    @property
    def center(self) -> tuple[float, float]:
        return ((self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2)

    @property
    def visible(self) -> bool:
        """True if any part of the box is inside the frame."""
        return self.x1 < 1 and self.x2 > 0 and self.y1 < 1 and self.y2 > 0

    def moved(self, dx: float, dy: float) -> Box:
        return Box(self.x1 + dx, self.y1 + dy, self.x2 + dx, self.y2 + dy)

    def clipped(self) -> Box:
        """The part inside the frame. Raises ValueError if no part is."""
        return Box(max(self.x1, 0.0), max(self.y1, 0.0), min(self.x2, 1.0), min(self.y2, 1.0))


class Offset(Struct, frozen=True, array_like=True, gc=False):
    """The travel of the camera: dx to the right, dy down, in shares of the frame's width and height."""

    dx: Share
    dy: Share


MIN_DETERMINANT = 1e-9
"""Of a homography whose largest entry is 1. A travel by 100 frames, the contract's limit, has 1e-6."""


def invertible(matrix: Homography) -> bool:
    """Whether all numbers are finite and the determinant is positive: the background is seen from its front side."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    largest = max(abs(value) for row in matrix for value in row)
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return math.isfinite(determinant) and determinant > MIN_DETERMINANT * largest**3


Real = Annotated[float, Meta(ge=-1e9, le=1e9)]
PoseRow = tuple[Real, Real, Real, Real]


class CameraPose(Struct, frozen=True, array_like=True):
    """Where a perspective camera is, and how it projects.

    `to_world`: the rows of the (3, 4) matrix from camera space (x right, y down, z ahead) to the world (Blender's axes,
    z up), with positions in meters. `focal` (fx, fy) and `center` (cx, cy) are in shares of the frame: a point at
    (x, y, z) in camera space is shown at (fx x / z + cx, fy y / z + cy).
    """

    to_world: tuple[PoseRow, PoseRow, PoseRow]
    focal: tuple[Real, Real]
    center: tuple[Real, Real] = (0.5, 0.5)

    def __post_init__(self) -> None:
        if min(self.focal) <= 0:
            raise ValueError(f"a camera needs a focal length above zero, got {self.focal}")


MAX_NEARNESS, MAX_ROWS, MAX_COLUMNS = 64.0, 16, 24


class Parallax(Struct, frozen=True):
    """How near the scenery is, for a background that is not flat.

    `infinity`: like a path's homographies, but of points infinitely far away, with the same factors: what is at
    nearness n in frame 0 is mapped by infinity + n (homography - infinity). Nearness is the background's distance
    divided by the point's, both along frame 0's line of sight: 1 on the background, more in front of it, 0 infinitely
    far.

    `nearness`: what each frame shows, in `rows` x `columns` equal cells: float16, little-endian, 0 to MAX_NEARNESS, for
    frame after frame, row by row, from the top left.
    """

    infinity: Annotated[list[Homography], Meta(min_length=1, max_length=MAX_FRAMES)]
    rows: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    columns: Annotated[int, Meta(ge=1, le=MAX_COLUMNS)]
    nearness: Annotated[bytes, Meta(max_length=2 * MAX_FRAMES * MAX_ROWS * MAX_COLUMNS)]

    def __post_init__(self) -> None:
        expected = 2 * len(self.infinity) * self.rows * self.columns
        if len(self.nearness) != expected:
            raise ValueError(f"the nearness of all frames has {expected} bytes, got {len(self.nearness)}")
        if not all(0 <= value <= MAX_NEARNESS for (value,) in struct.iter_unpack("<e", self.nearness)):
            raise ValueError(f"a nearness is 0 to {MAX_NEARNESS:g}, and the shot has others")


class CameraPath(Struct, frozen=True):
    """The camera's travel c_cam: one offset for each model frame, the first (0, 0). The content moves the other way.

    `homographies`: of the background, one for each model frame, if the camera does more than pan; else empty. Each maps
    points of frame 0, in shares of the frame, to where they are in its frame: (x, y, w) = H (x0, y0, 1), shown at
    (x / w, y / w), or behind the camera if w <= 0. A positive factor does not matter. They take precedence over the
    offsets, which are then how far the center of the view has traveled.

    `poses`: the scene's camera at each model frame, for other programs; empty if it is not known, or not a single
    perspective camera. They do not steer our own models.

    `parallax`: how near the scenery is, beside the homographies; None for a flat background.
    """

    offsets: Annotated[list[Offset], Meta(min_length=1, max_length=MAX_FRAMES)]
    homographies: Annotated[list[Homography], Meta(max_length=MAX_FRAMES)] = []
    poses: Annotated[list[CameraPose], Meta(max_length=MAX_FRAMES)] = []
    parallax: Parallax | None = None

    def __post_init__(self) -> None:
        first = self.offsets[0]
        if abs(first.dx) > 1e-6 or abs(first.dy) > 1e-6:
            raise ValueError(f"a camera path starts at (0, 0), got ({first.dx}, {first.dy})")
        if self.poses and len(self.poses) != len(self.offsets):
            raise ValueError(f"{len(self.poses)} camera poses for {len(self.offsets)} model frames")
        if self.parallax and len(self.parallax.infinity) != len(self.homographies):
            raise ValueError(
                f"parallax of {len(self.parallax.infinity)} frames beside {len(self.homographies)} homographies"
            )
        if not self.homographies:
            return
        if len(self.homographies) != len(self.offsets):
            raise ValueError(f"{len(self.homographies)} homographies for {len(self.offsets)} model frames")
        for frame, matrix in enumerate(self.homographies):
            if not invertible(matrix):
                raise ValueError(
                    f"the homography of model frame {frame} needs finite numbers and a positive determinant, "
                    f"got {matrix}"
                )
        for matrices in [self.homographies, *([self.parallax.infinity] if self.parallax else [])]:
            start, scale = [value for row in matrices[0] for value in row], matrices[0][2][2]
            if any(abs(value - scale * (index % 4 == 0)) > 1e-6 * scale for index, value in enumerate(start)):
                raise ValueError(f"the homography of model frame 0 must be the identity, got {matrices[0]}")

    @classmethod
    def straight(cls, cx: float, cy: float, frames: int) -> CameraPath:
        """The paper's c_cam = [cx, cy]: the offset of frame f of F is c * f / F."""
        return cls([Offset(cx * f / frames, cy * f / frames) for f in range(frames)])

    @classmethod
    def still(cls, frames: int) -> CameraPath:
        return cls.straight(0.0, 0.0, frames)

    @property
    def moves(self) -> bool:
        infinity = self.parallax.infinity if self.parallax else []
        return any(offset.dx or offset.dy for offset in self.offsets) or any(
            matrix != matrices[0] for matrices in (self.homographies, infinity) for matrix in matrices
        )


class SubjectTrack(Struct, frozen=True):
    """A subject of a shot, and its boxes.

    `token` is the rare word of a trained subject ("sks"), or "" for something that the base model knows; `class_word`
    is the ordinary noun ("dog"). The prompt must contain "token class_word". `weights` is the sha256 of the trained
    subject, None if there is none. `boxes`: one for each model frame, None while the subject is out of frame.
    """

    name: Name
    class_word: Name
    boxes: Annotated[list[Box | None], Meta(min_length=1, max_length=MAX_FRAMES)]
    token: Short = ""
    weights: Sha256 | None = None

    @property
    def phrase(self) -> str:
        """The words of the prompt that name this subject: "sks dog"."""
        return f"{self.token} {self.class_word}".strip()


class Shot(Struct, frozen=True):
    """A range of the animator's timeline, sampled at the model's frames.

    `frame_start` to `frame_end` (both included) are scene frames at `fps` frames a second; `width` x `height` is the
    scene's render size in pixels. The tracks and the camera path have one entry for each model frame, evenly spaced:
    model frame f of F is at scene time frame_start + f * (frame_end - frame_start) / (F - 1).

    `model_frame`: the place of the clip in the finished frame of the scene, in shares of that; it extends outside if
    the clip shows more than the finished frame. None: the clip is fitted into the finished frame.
    """

    name: Name
    frame_start: Annotated[int, Meta(ge=-1_048_574, le=1_048_574)]
    frame_end: Annotated[int, Meta(ge=-1_048_574, le=1_048_574)]
    fps: Annotated[float, Meta(ge=0.001, le=1000)]  # as a video file can have it
    width: Annotated[int, Meta(ge=4, le=65536)]
    height: Annotated[int, Meta(ge=4, le=65536)]
    camera: CameraPath
    subjects: Annotated[list[SubjectTrack], Meta(max_length=MAX_SUBJECTS)] = []
    model_frame: Box | None = None

    def __post_init__(self) -> None:
        if self.frame_end <= self.frame_start:
            raise ValueError(
                f"a shot needs at least two frames, got the range {self.frame_start} to {self.frame_end}; "
                "set the end frame after the start frame"
            )
        if self.scene_frames > MAX_SCENE_FRAMES:
            raise ValueError(
                f"a shot has at most {MAX_SCENE_FRAMES} frames, got the range {self.frame_start} to {self.frame_end}; "
                "split it into several"
            )
        for track in self.subjects:
            if len(track.boxes) != self.frames:
                raise ValueError(
                    f"subject {track.name!r} has {len(track.boxes)} boxes, the camera path {self.frames} frames; "
                    "both need one entry for each model frame"
                )

    @property
    def frames(self) -> int:
        """The number of frames that the model generates."""
        return len(self.camera.offsets)

    @property
    def scene_frames(self) -> int:
        """The number of frames of the finished clip on the timeline."""
        return self.frame_end - self.frame_start + 1

    @property
    def times(self) -> list[float]:
        """The scene frames (with fractions) of the model's frames."""
        return scene_times(self.frame_start, self.frame_end, self.frames)


def scene_times(frame_start: int, frame_end: int, frames: int) -> list[float]:
    """Scene frames (with fractions) at which the model's `frames` frames are sampled, first and last included."""
    if frames == 1:
        return [float(frame_start)]
    return [frame_start + f * (frame_end - frame_start) / (frames - 1) for f in range(frames)]
