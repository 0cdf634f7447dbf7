"""Fits the model's frame to the shot's frame when their aspect ratios differ (no bpy).

FIT: the model's frame contains the whole shot; what the model generates beyond it is hidden.
CROP: the model's frame is inside the shot's frame; the edges of the shot stay empty.
Nothing is stretched or moved in either mode.
"""

from __future__ import annotations

from .._protocol.motion import Box
from .._protocol.text import Text

FIT, CROP = "FIT", "CROP"
WHOLE = Box(0.0, 0.0, 1.0, 1.0)
SAME_ASPECT = 1e-3  # relative difference of two aspect ratios that is less than a pixel of any clip


def model_frame(shot_aspect: float, model_aspect: float, framing: str) -> Box:
    """The model's frame in shares of the shot's frame, centered. Aspect ratios are width / height as displayed."""
    wider = model_aspect / shot_aspect
    if abs(wider - 1) < SAME_ASPECT:
        return WHOLE
    across = max(wider, 1.0) if framing == FIT else min(wider, 1.0)
    up = across / wider
    return Box(0.5 - across / 2, 0.5 - up / 2, 0.5 + across / 2, 0.5 + up / 2)


def size(frame: Box) -> tuple[float, float]:
    """Width and height."""
    return frame.x2 - frame.x1, frame.y2 - frame.y1


def in_shot(box: Box, frame: Box) -> Box:
    """Convert a box from shares of the model's frame to shares of the shot's; `frame` is the model's in the shot's."""
    width, height = size(frame)
    return Box(
        frame.x1 + box.x1 * width, frame.y1 + box.y1 * height, frame.x1 + box.x2 * width, frame.y1 + box.y2 * height
    )


def explanation(frame: Box) -> Text | None:
    """What the framing hides or leaves empty; None if both frames have the same aspect ratio."""
    width, height = size(frame)
    if max(width, height) > 1:
        return Text.of(
            "The model's frame is larger than the shot: {hidden:.0%} of its {side} is generated but hidden. "
            "Set a resolution with the model's aspect ratio to use all of it.",
            hidden=1 - 1 / max(width, height),
            side=Text("width" if width > 1 else "height"),
        )
    if min(width, height) < 1:
        return Text.of(
            "The model's frame is smaller than the shot: {empty:.0%} of the shot's {side} stays empty. "
            "Set a resolution with the model's aspect ratio, or set Framing to Fit.",
            empty=1 - min(width, height),
            side=Text("width" if width < 1 else "height"),
        )
    return None
