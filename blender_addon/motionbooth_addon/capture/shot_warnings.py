"""What a shot asks for and the method cannot follow: a sentence for the animator, and where it happens. Free of bpy."""

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

ROLL_LIMIT_DEGREES = 3.0
ZOOM_LIMIT = 0.05  # share by which the background may grow or shrink
PARALLAX_LIMIT = 0.05  # share of the frame by which things twice as far away may lag behind the background
SETTLED = 0.02  # of a change is spared at each end, when saying in which frames it happens

# A subject is learned on a grid of 1/32 of the picture's side, 18 x 10 cells for a picture of 576 x 320; a box that is
# smaller than a cell fills a whole one. (MotionBooth, section 3.2: the layers whose cross-attention is looked at.)
SMALLEST_WIDTH, SMALLEST_HEIGHT = 1 / 18, 1 / 10


@dataclass(frozen=True)
class Concern:
    """One thing to know about a shot: it happens in scene frames `first` to `last` (both included).

    `sentence` includes the frames.
    """

    first: int
    last: int
    sentence: Text


def camera_concerns(travel: Travel, moments: Sequence[float]) -> list[Concern]:
    """What a sliding picture cannot show of a camera's move. `moments`: the scene frame of each entry of `travel`."""
    frames = np.array(moments)
    found = [_roll(travel, frames), _zoom(travel, frames), _depth(travel, frames), _parallax(travel, frames)]
    return [concern for concern in found if concern] + [_cut(moments[cut]) for cut in travel.cuts]


def _roll(travel: Travel, frames: Array) -> Concern | None:
    roll = _farthest(travel.roll)
    if abs(roll) <= ROLL_LIMIT_DEGREES:
        return None
    return _over(
        travel.roll,
        frames,
        "The camera rolls by {degrees:.0f} degrees {frames}; the film can slide but not turn, so it will stay level.",
        degrees=abs(roll),
    )


def _zoom(travel: Travel, frames: Array) -> Concern | None:
    growth = math.exp(_farthest(np.log(travel.lens)))
    if abs(math.log(growth)) <= math.log1p(ZOOM_LIMIT):
        return None
    return _over(
        np.log(travel.lens),
        frames,
        "The lens zooms {frames}: things {change} of their size, and the film's background will stay as it is; boxes "
        "follow the zoom.",
        change=_change(growth),
    )


def _depth(travel: Travel, frames: Array) -> Concern | None:
    """What of the background's growth the lens does not explain."""
    moved = np.log(travel.zoom) - np.log(travel.lens)
    growth = math.exp(_farthest(moved))
    if abs(math.log(growth)) <= math.log1p(ZOOM_LIMIT):
        return None
    towards = (
        "The camera moves towards the background {frames}: it {change} of its size, and the film's will stay as it is; "
        "boxes follow the move."
    )
    away = (
        "The camera moves away from the background {frames}: it {change} of its size, and the film's will stay as it "
        "is; boxes follow the move."
    )
    return _over(moved, frames, towards if growth > 1 else away, change=_change(growth, one=True))


def _parallax(travel: Travel, frames: Array) -> Concern | None:
    lag = float(np.abs(travel.lag).max())
    if lag <= PARALLAX_LIMIT:
        return None
    side = np.abs(travel.lag).max(axis=0).argmax()
    return _over(
        travel.lag[:, side],
        frames,
        "The camera moves sideways {frames}: things at twice the background distance lag behind by {lag:.0%} of the "
        "frame, and the film's background slides as one flat picture; check the background distance.",
        lag=lag,
    )


def cut_concern(before: str, after: str, moment: float) -> Concern:
    """The scene cuts from the one camera to the other, by a timeline marker."""
    frame = math.floor(moment)
    sentence = Text.of(
        'The scene cuts from camera "{before}" to "{after}" at frame {frame}; a clip is one take and shows no cut, '
        "and the camera path leaves it out. End the shot before it, or make a scene of its own for each camera.",
        before=before,
        after=after,
        frame=frame,
    )
    return Concern(frame, frame, sentence)


def unread_concern(name: str, reason: Text, first: int, last: int) -> Concern:
    """A subject ("": the camera) that only playing the scene shows as it is."""
    sentence = Text.of(
        "{subject} is only right when the scene is played ({reason}), which takes longer: press Read by Playing to see "
        "its motion here. Generate does so by itself.",
        subject=Text.of('"{name}"', name=name) if name else Text("The camera"),
        reason=reason,
    )
    return Concern(first, last, sentence)


def _cut(moment: float) -> Concern:
    frame = math.floor(moment)
    sentence = Text.of("The camera jumps at frame {frame}; a clip is one take, so end the shot before it.", frame=frame)
    return Concern(frame, frame, sentence)


def track_concerns(
    name: str, boxes: Sequence[Box | None], behind: Sequence[bool], moments: Sequence[float], frame: Box = WHOLE
) -> list[Concern]:
    """What a model cannot follow of the subject called `name`.

    `boxes`: at each of the model's frames, None where it is out of the frame. `behind`: where that is because it is
    behind the camera. `moments`: the scene frame of each. `frame`: where the model's frame lies in the shot's.
    """
    shown = [box is not None and in_shot(box, frame).visible for box in boxes]
    missing = [not there and not back for there, back in zip(shown, behind, strict=True)]
    small = [box is not None and _is_small(box) for box in boxes]
    return [
        *_spells(behind, moments, '"{name}" is behind the camera {frames}; it will not be seen there.', name=name),
        *_spells(missing, moments, '"{name}" is outside the frame {frames}; it will not be seen there.', name=name),
        *_spells(
            small,
            moments,
            'The box of "{name}" is smaller {frames} than the smallest that can be held ({width:.0%} of the frame\'s '
            "width, {height:.0%} of its height); it will come out larger, or not at all.",
            name=name,
            width=SMALLEST_WIDTH,
            height=SMALLEST_HEIGHT,
        ),
        *_jumps(name, boxes, moments),
    ]


def _is_small(box: Box) -> bool:
    seen = box.clipped()
    return seen.x2 - seen.x1 < SMALLEST_WIDTH or seen.y2 - seen.y1 < SMALLEST_HEIGHT


def _jumps(name: str, boxes: Sequence[Box | None], moments: Sequence[float]) -> list[Concern]:
    """Where a box has no place in common with the one before: nothing is then carried over between the two pictures."""
    found = []
    for number in range(1, len(boxes)):
        before, after = boxes[number - 1], boxes[number]
        if before is not None and after is not None and not _overlap(before, after):
            first, last = math.floor(moments[number - 1]), math.ceil(moments[number])
            sentence = Text.of(
                '"{name}" moves by more than its own size from frame {first} to {last}, between two pictures of the '
                "film, which will show a jump there or another one in its place; slow it down or make its box larger.",
                name=name,
                first=first,
                last=last,
            )
            found.append(Concern(first, last, sentence))
    return found


def _overlap(a: Box, b: Box) -> bool:
    return a.x1 < b.x2 and b.x1 < a.x2 and a.y1 < b.y2 and b.y1 < a.y2


def _spells(happens: Sequence[bool], moments: Sequence[float], template: str, **values: object) -> list[Concern]:
    """One concern for each unbroken stretch of moments."""
    found = []
    for bad, group in groupby(zip(happens, moments, strict=True), key=lambda entry: entry[0]):
        frames = [moment for _, moment in group]
        if bad:
            found.append(_concern(math.floor(frames[0]), math.ceil(frames[-1]), template, values))
    return found


def _over(changing: Array, frames: Array, template: str, **values: object) -> Concern:
    """The concern over the frames in which `changing` (T,) does: from when the change has begun to when it is done."""
    steps = np.abs(np.diff(changing))
    done = np.cumsum(steps) / steps.sum()
    first = frames[int((done > SETTLED).argmax())]
    last = frames[int((done >= 1 - SETTLED).argmax()) + 1]
    return _concern(math.floor(first), math.ceil(last), template, values)


def _concern(first: int, last: int, template: str, values: Mapping[str, object]) -> Concern:
    frames = Text.of("at frame {first}" if first == last else "from frame {first} to {last}", first=first, last=last)
    return Concern(first, last, Text.of(template, frames=frames, **values))


def _change(factor: float, one: bool = False) -> Text:
    if one:
        return Text.of("grows to {share:.0%}" if factor > 1 else "shrinks to {share:.0%}", share=factor)
    return Text.of("grow to {share:.0%}" if factor > 1 else "shrink to {share:.0%}", share=factor)


def _farthest(values: Array) -> float:
    """The value farthest from 0."""
    return float(values[np.abs(values).argmax()])
