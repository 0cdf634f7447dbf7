"""Registers every class and property of the extension, and removes them in reverse order."""

from __future__ import annotations

import bpy

from . import preferences, properties, thumbnails, ui_state
from .batch import blender_command
from .drawing import gizmo, overlay
from .i18n import translation
from .jobs import controller, file_handlers
from .operators import backend, engines, models, styles, subjects
from .operators import jobs as job_operators
from .operators import takes as take_operators
from .panels import jobs as job_panels
from .panels import menus, shot
from .panels import models as model_panels
from .panels import takes as take_panels

CLASSES = (
    properties.MotionBoothSubject,
    properties.MotionBoothTake,
    properties.MotionBoothStyle,
    properties.MotionBoothShot,
    ui_state.MotionBoothModel,
    ui_state.MotionBoothLicense,
    ui_state.MotionBoothPublished,
    ui_state.MotionBoothTrained,
    ui_state.MotionBoothJob,
    ui_state.MotionBoothState,
    preferences.MotionBoothPreferences,
    *backend.CLASSES,
    *subjects.CLASSES,
    *styles.CLASSES,
    *job_operators.CLASSES,
    *take_operators.CLASSES,
    *engines.CLASSES,
    *models.CLASSES,
    *shot.CLASSES,
    *job_panels.CLASSES,
    *take_panels.CLASSES,
    *model_panels.CLASSES,
    *menus.CLASSES,
    *gizmo.CLASSES,
)


def register() -> None:
    translation.register()
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.motionbooth = bpy.props.PointerProperty(type=properties.MotionBoothShot)
    bpy.types.WindowManager.motionbooth = bpy.props.PointerProperty(type=ui_state.MotionBoothState)
    thumbnails.register()
    menus.register()
    overlay.register()
    bpy.types.STATUSBAR_HT_header.append(job_panels.draw_status)
    controller.register()
    file_handlers.register()
    blender_command.register()


def unregister() -> None:
    blender_command.unregister()
    file_handlers.unregister()
    controller.unregister()
    bpy.types.STATUSBAR_HT_header.remove(job_panels.draw_status)
    overlay.unregister()
    menus.unregister()
    thumbnails.unregister()
    del bpy.types.WindowManager.motionbooth
    del bpy.types.Scene.motionbooth
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
    translation.unregister()
