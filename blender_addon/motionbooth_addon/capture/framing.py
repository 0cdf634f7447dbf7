"""Where the model's frame lies in the shot's, when the two have different shapes. Free of bpy.

FIT: the whole shot lies inside the model's frame; what the model shows beyond it is not seen in the finished picture.
CROP: the model's frame lies inside the shot's; the shot's edges are cut, and stay empty in the finished picture.
Either way what was drawn is where it was drawn, and nothing is stretched.
"""

from __future__ import annotations

from .._protocol.motion import Box

FIT, CROP = "FIT", "CROP"
WHOLE = Box(0.0, 0.0, 1.0, 1.0)
SAME_SHAPE = 1e-3  # relative difference of two aspect ratios that is less than a pixel of any clip


def model_frame(shot_aspect: float, model_aspect: float, framing: str) -> Box:
    """The model's frame in shares of the shot's, centered in it. Aspects are width / height as they are shown."""
    wider = model_aspect / shot_aspect
    if abs(wider - 1) < SAME_SHAPE:
        return WHOLE
    across = max(wider, 1.0) if framing == FIT else min(wider, 1.0)
    return _centered(across, across / wider)


def _centered(width: float, height: float) -> Box:
    return Box(0.5 - width / 2, 0.5 - height / 2, 0.5 + width / 2, 0.5 + height / 2)


def size(frame: Box) -> tuple[float, float]:
    return frame.x2 - frame.x1, frame.y2 - frame.y1


def in_shot(box: Box, frame: Box) -> Box:
    """A box in shares of the model's frame, in shares of the shot's, in which the model's lies at `frame`."""
    width, height = size(frame)
    return Box(
        frame.x1 + box.x1 * width, frame.y1 + box.y1 * height, frame.x1 + box.x2 * width, frame.y1 + box.y2 * height
    )


def explained(frame: Box) -> str:
    """What the framing does to the picture, a sentence; empty where both frames have the same shape."""
    width, height = size(frame)
    if width > 1 or height > 1:
        hidden = 1 - 1 / max(width, height)
        return (
            f"The model's frame reaches beyond the shot's: {hidden:.0%} of its {_side(width)} is generated and not "
            "shown. Choose a render size of the model's shape to use all of it."
        )
    if width < 1 or height < 1:
        empty = 1 - min(width, height)
        return (
            f"The model's frame is inside the shot's: {empty:.0%} of the shot's {_side(2 - width)} is cut and stays "
            "empty. Choose a render size of the model's shape, or the framing Fit."
        )
    return ""


def _side(width: float) -> str:
    return "width" if width > 1 else "height"
