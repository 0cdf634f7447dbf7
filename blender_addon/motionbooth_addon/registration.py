"""Every class and property of the extension: a list, and its reverse."""

from __future__ import annotations

import bpy

from . import preferences, properties

CLASSES = (
    properties.MotionBoothSubject,
    properties.MotionBoothTake,
    properties.MotionBoothShot,
    preferences.MotionBoothPreferences,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.motionbooth = bpy.props.PointerProperty(type=properties.MotionBoothShot)


def unregister() -> None:
    del bpy.types.Scene.motionbooth
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
