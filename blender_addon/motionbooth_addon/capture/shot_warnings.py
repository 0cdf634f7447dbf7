"""Warnings about shots: what the model cannot follow, and in which frames (no bpy)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from .._protocol.motion import Box
from .._protocol.text import Text
from .framing import WHOLE, in_shot
from .projection import Array, Travel

DEPTH_LIMIT = 0.05  # share by which a move toward or away from the background may change its size
PARALLAX_LIMIT = 0.05  # share of the frame by which things twice as far away may lag behind the background
STRETCH_LIMIT = 0.25  # share by which a shot may be longer than the model's clip
SETTLED = 0.02  # share of a change that is ignored at each end, when finding the frames in which it happens

# The cross-attention that places a subject has 18 x 10 cells for a frame of 576 x 320 (MotionBooth, section 3.2). A box
# that is smaller than a cell still fills one.
SMALLEST_WIDTH, SMALLEST_HEIGHT = 1 / 18, 1 / 10


@dataclass(frozen=True)
class ShotWarning:
    """A warning about scene frames `first` to `last` (both included), which its sentence mentions."""

    first: int
    last: int
    sentence: Text


def camera_warnings(travel: Travel, moments: Sequence[float], flat: bool = True) -> list[ShotWarning]:
    """Jumps, and what a flat background cannot show of a camera move. `moments`: the scene frames of `travel`."""
    frames = np.array(moments)
    found = [_depth(travel, frames), _parallax(travel, frames)] if flat else []
    jump = "The camera jumps at frame {frame}. A clip cannot contain a cut, so end the shot before it."
    return [warning for warning in found if warning] + [_at(moments[cut], jump) for cut in travel.cuts]


def _depth(travel: Travel, frames: Array) -> ShotWarning | None:
    """The growth of the background that the lens does not explain."""
    toward = (
        "The camera moves toward the background {frames}, which grows to {share:.0%} of its size. The clip's "
        "background grows as one flat image: nearer things do not grow faster than distant ones."
    )
    away = (
        "The camera moves away from the background {frames}, which shrinks to {share:.0%} of its size. The clip's "
        "background shrinks as one flat image: nearer things do not shrink faster than distant ones."
    )
    logarithm = np.log(travel.zoom) - np.log(travel.lens)
    farthest = _farthest(logarithm)
    if abs(farthest) <= math.log1p(DEPTH_LIMIT):
        return None
    return _during_change(logarithm, frames, toward if farthest > 0 else away, share=math.exp(farthest))


def _parallax(travel: Travel, frames: Array) -> ShotWarning | None:
    lag = float(np.abs(travel.lag).max())
    if lag <= PARALLAX_LIMIT:
        return None
    side = np.abs(travel.lag).max(axis=0).argmax()
    return _during_change(
        travel.lag[:, side],
        frames,
        "The camera moves sideways {frames}: things at twice the background distance lag behind by {lag:.0%} of the "
        "frame. The clip's background moves as one flat image; check the background distance.",
        lag=lag,
    )


def length_warning(seconds: float, frames: int, fps: float) -> Text | None:
    """What becomes of a shot that is longer than the model's clip: `frames` at the `fps` that it was trained on."""
    own = frames / fps
    if seconds <= own * (1 + STRETCH_LIMIT):
        return None
    return Text.of(
        "The shot lasts {seconds:.1f} s, the model's clip {own:.1f} s. Its frames are spread over the shot: boxes and "
        "camera keep their timing, but whatever else moves is {times:.1f} times slower. Split the shot to avoid this.",
        seconds=seconds,
        own=own,
        times=seconds / own,
    )


def plane_warning(moments: Sequence[float]) -> ShotWarning:
    """The camera reaches the plane of the background, or sees it edge-on or from behind, at these moments."""
    template = (
        "The camera reaches the background's plane {frames}. The clip's background can only pan, without zoom and "
        "roll. Set a larger background distance."
    )
    return _warning(math.floor(moments[0]), math.ceil(moments[-1]), template, {})


def cut_warning(before: str, after: str, moment: float) -> ShotWarning:
    """A timeline marker cuts from one camera to another."""
    return _at(
        moment,
        'The scene cuts from camera "{before}" to "{after}" at frame {frame}. A clip cannot contain a cut, and the '
        "camera path ignores it. End the shot before the cut, or make one scene for each camera.",
        before=before,
        after=after,
    )


def followed_in_part(camera: Sequence[ShotWarning]) -> Text | None:
    """The camera's warnings in short, for the view: in which frames the clip can't show all of its move."""
    if not camera:
        return None
    ranges = sorted({(warning.first, warning.last) for warning in camera})
    frames = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
    return Text.of("Camera followed in part, frames {frames}: see Warnings", frames=frames)


def playback_warning(name: str, reason: Text, first: int, last: int) -> ShotWarning:
    """A subject, or the camera (""), that needs playback and was not read."""
    sentence = Text.of(
        "{subject} can only be read with playback ({reason}), which is slower. Press Read with Playback to see its "
        "motion here. Generate does it automatically.",
        subject=Text.of('"{name}"', name=name) if name else Text("The camera"),
        reason=reason,
    )
    return ShotWarning(first, last, sentence)


def _at(moment: float, template: str, **values: object) -> ShotWarning:
    """A warning about one frame."""
    frame = math.floor(moment)
    return ShotWarning(frame, frame, Text.of(template, frame=frame, **values))


def subject_warnings(
    name: str, boxes: Sequence[Box | None], behind: Sequence[bool], moments: Sequence[float], frame: Box = WHOLE
) -> list[ShotWarning]:
    """What the model cannot follow of a subject.

    boxes: the box at each of the model's frames, None if the subject is not visible. behind: whether it is behind the
    camera. moments: the scene frames. frame: the model's frame in shares of the shot's.
    """
    shown = [box is not None and in_shot(box, frame).visible for box in boxes]
    missing = [not there and not back for there, back in zip(shown, behind, strict=True)]
    small = [box is not None and _is_small(box) for box in boxes]
    return [
        *_stretches(behind, moments, '"{name}" is behind the camera {frames} and will not be visible.', name=name),
        *_stretches(missing, moments, '"{name}" is outside the frame {frames} and will not be visible.', name=name),
        *_stretches(
            small,
            moments,
            'The box of "{name}" is too small {frames} for the model, which needs {width:.0%} of the frame\'s width '
            "and {height:.0%} of its height. The subject will be larger or missing.",
            name=name,
            width=SMALLEST_WIDTH,
            height=SMALLEST_HEIGHT,
        ),
        *_jumps(name, boxes, moments),
    ]


def _is_small(box: Box) -> bool:
    visible = box.clipped()
    return visible.x2 - visible.x1 < SMALLEST_WIDTH or visible.y2 - visible.y1 < SMALLEST_HEIGHT


def _jumps(name: str, boxes: Sequence[Box | None], moments: Sequence[float]) -> list[ShotWarning]:
    """Where a box does not overlap the one before, so that the two frames have nothing in common."""
    found = []
    for number in range(1, len(boxes)):
        before, after = boxes[number - 1], boxes[number]
        if before is not None and after is not None and not _overlap(before, after):
            first, last = math.floor(moments[number - 1]), math.ceil(moments[number])
            sentence = Text.of(
                '"{name}" moves by more than its own size from frame {first} to {last}, between two frames of the '
                "model. The clip will show a jump or another subject there. Slow it down or enlarge its box.",
                name=name,
                first=first,
                last=last,
            )
            found.append(ShotWarning(first, last, sentence))
    return found


def _overlap(a: Box, b: Box) -> bool:
    return a.x1 < b.x2 and b.x1 < a.x2 and a.y1 < b.y2 and b.y1 < a.y2


def _stretches(happens: Sequence[bool], moments: Sequence[float], template: str, **values: object) -> list[ShotWarning]:
    """One warning for each uninterrupted stretch of moments."""
    found = []
    for bad, group in groupby(zip(happens, moments, strict=True), key=lambda entry: entry[0]):
        frames = [moment for _, moment in group]
        if bad:
            found.append(_warning(math.floor(frames[0]), math.ceil(frames[-1]), template, values))
    return found


def _during_change(changing: Array, frames: Array, template: str, **values: object) -> ShotWarning:
    """A warning about the frames from the start to the end of the change in `changing` (T,)."""
    steps = np.abs(np.diff(changing))
    done = np.cumsum(steps) / steps.sum()
    first = frames[int((done > SETTLED).argmax())]
    last = frames[int((done >= 1 - SETTLED).argmax()) + 1]
    return _warning(math.floor(first), math.ceil(last), template, values)


def _warning(first: int, last: int, template: str, values: Mapping[str, object]) -> ShotWarning:
    frames = Text.of("at frame {first}" if first == last else "from frame {first} to {last}", first=first, last=last)
    return ShotWarning(first, last, Text.of(template, frames=frames, **values))


def _farthest(values: Array) -> float:
    """The value farthest from 0."""
    return float(values[np.abs(values).argmax()])
