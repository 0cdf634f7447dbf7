"""What a person is told of an error. No bpy."""

from __future__ import annotations

import traceback

from ._protocol.errors import MotionBoothError, from_os_error


def for_a_person(error: Exception) -> MotionBoothError:
    """The error itself if it has a message for people, or one that has. The traceback of a fault is printed."""
    if isinstance(error, MotionBoothError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error)
    traceback.print_exception(error)
    return MotionBoothError(
        "Unexpected error ({reason}). Please report it; the details are in Blender's console.",
        reason=f"{type(error).__name__}: {error}",
    )
