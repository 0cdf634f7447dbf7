"""Blender's handlers that keep takes and jobs up to date when a .blend is opened or saved."""

from __future__ import annotations

import contextlib
from pathlib import Path

import bpy
from bpy.app.handlers import persistent

from .. import __package__ as base_package
from ..files import clip_folder, unsaved_clips
from ..timeline import clips
from . import controller

_transaction: clips.SaveTransaction | None = None


def clip_setting() -> str:
    """The folder for clips from the preferences, or its default if a script uses the package without enabling it."""
    entry = bpy.context.preferences.addons.get(base_package)
    return entry.preferences.clip_folder if entry is not None else ""


@persistent
def _before_save(blend: str) -> None:
    global _transaction
    if blend:  # "" for the startup file
        _transaction = clips.SaveTransaction(blend, unsaved_clips(), clip_folder(clip_setting(), blend))


@persistent
def _after_save(blend: str) -> None:
    transaction = _end_transaction()
    if transaction is None:
        return
    if blend != bpy.data.filepath:  # a copy was saved; the path of the open file has not changed
        transaction.rollback()
        return
    transaction.commit()
    if controller.is_created():
        controller.job_controller().saved()
        if transaction.error:
            controller.job_controller().ui.show_notice(transaction.error, is_error=True)


@persistent
def _after_failed_save(_: str) -> None:
    if (transaction := _end_transaction()) is not None:
        transaction.rollback()


def _end_transaction() -> clips.SaveTransaction | None:
    global _transaction
    transaction, _transaction = _transaction, None
    return transaction


@persistent
def _after_load(_: str) -> None:
    if controller.is_created():
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
        with contextlib.suppress(ValueError):  # a script has cleared the list
            getattr(bpy.app.handlers, name).remove(handler)
