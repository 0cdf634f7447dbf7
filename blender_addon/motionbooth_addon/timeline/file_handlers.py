"""What happens to takes and jobs when a .blend is opened or saved: Blender's handlers."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.app.handlers import persistent

from .. import __package__ as base_package
from ..files import clip_folder, unsaved_clips
from ..jobs import controller
from . import clips

_saving: clips.SaveTransaction | None = None


def clip_setting() -> str:
    """Where clips go: the preference; beside the .blend where a script has not enabled the extension."""
    entry = bpy.context.preferences.addons.get(base_package)
    return entry.preferences.clip_folder if entry is not None else "//motionbooth"


@persistent
def _before_save(blend: str) -> None:
    global _saving
    if blend:  # "" for the startup file
        _saving = clips.SaveTransaction(blend, unsaved_clips(), clip_folder(clip_setting(), blend))


@persistent
def _after_save(blend: str) -> None:
    saving = _take_saving()
    if saving is None:
        return
    if blend != bpy.data.filepath:  # a copy, and the open file is where it was
        saving.undone()
        return
    saving.done()
    if controller.is_begun():
        controller.job_controller().saved()
        if saving.trouble:
            controller.job_controller().ui.show_notice(saving.trouble, is_error=True)


@persistent
def _after_failed_save(_: str) -> None:
    if (saving := _take_saving()) is not None:
        saving.undone()


def _take_saving() -> clips.SaveTransaction | None:
    global _saving
    saving, _saving = _saving, None
    return saving


@persistent
def _after_load(_: str) -> None:
    if controller.is_begun():
        controller.job_controller().opened()
    else:
        clips.relink_missing(lambda take: [unsaved_clips() / Path(take.clip_path).name])


_HANDLERS = {
    "save_pre": _before_save,
    "save_post": _after_save,
    "save_post_fail": _after_failed_save,
    "load_post": _after_load,
}


def register() -> None:
    for name, handler in _HANDLERS.items():
        getattr(bpy.app.handlers, name).append(handler)


def unregister() -> None:
    for name, handler in _HANDLERS.items():
        getattr(bpy.app.handlers, name).remove(handler)
