"""Keeps the paths of takes, strips and clip files consistent when the .blend is saved or moved.

Blender updates a strip's path when the .blend is saved to another folder, but not the path that the take stores. The
clips of an unsaved .blend are in the user's data folder until the first save, which copies them beside the .blend.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy

from .. import compat
from .._protocol.errors import NotFound
from .._protocol.masters import Master
from .._protocol.text import Text
from . import colors
from .take_motion import report_path

JOB = "motionbooth_job"  # custom property of a take's strip: the job that generated it


def clip_of(take: bpy.types.PropertyGroup) -> Path:
    """The path of a take's clip, whether the file exists or not."""
    return absolute(take.clip_path)


def existing_clip(take: bpy.types.PropertyGroup) -> Path:
    """The path of a take's clip. Raises NotFound if the file does not exist."""
    clip = clip_of(take)
    if not clip.is_file():
        raise NotFound(
            'The clip of take "{take}" is not at {clip}. Add it again from the job list.', take=take.name, clip=clip
        )
    return clip


def absolute(path: str) -> Path:
    """Resolve a path that may be relative to the open .blend."""
    return Path(bpy.path.abspath(path)).resolve()


def path_for(clip: Path, blend: str | None = None) -> str:
    """The path to store for a clip: relative if it is below the folder of the .blend (None: the open one)."""
    blend = bpy.data.filepath if blend is None else blend
    folder = Path(blend).parent.resolve()
    if blend and clip.resolve().is_relative_to(folder):
        return "//" + clip.resolve().relative_to(folder).as_posix()
    return str(clip.resolve())


def strip_of(scene: bpy.types.Scene, job: str) -> Any | None:
    """The strip of the take that a job generated, or None if it was deleted."""
    if scene.sequence_editor is None:
        return None
    return next((strip for strip in compat.all_strips(scene.sequence_editor) if strip.get(JOB) == job), None)


def own_scenes() -> list[bpy.types.Scene]:
    """The scenes of the open .blend, without those of linked libraries, whose changes are never saved."""
    return [scene for scene in bpy.data.scenes if scene.library is None]


def all_takes() -> Iterator[tuple[bpy.types.Scene, bpy.types.PropertyGroup]]:
    """All takes of the open .blend."""
    for scene in own_scenes():
        for take in scene.motionbooth.takes:
            yield scene, take


def relink(scene: bpy.types.Scene, take: bpy.types.PropertyGroup, clip: Path) -> None:
    """Set another path for the clip of a take and its strip."""
    take.clip_path = path_for(clip)
    strip = strip_of(scene, take.job_id)
    if strip is not None and strip.type == "MOVIE":
        strip.filepath = take.clip_path  # setting it reloads the file and resets the color space
        colors.set_color_space(scene, strip)


def relink_missing(candidates: Callable[[bpy.types.PropertyGroup], list[Path]]) -> list[str]:
    """Find the clips of the open .blend that are not at their path, and relink them.

    candidates: further paths at which a take's clip may be. Returns the jobs whose clip was not found for their strip.
    """
    lost = []
    for scene, take in all_takes():
        strip = strip_of(scene, take.job_id)
        shown = absolute(strip.filepath) if strip is not None and strip.type == "MOVIE" else None
        clip = clip_of(take)
        if clip.is_file() and (shown is None or shown.is_file()):
            continue
        beside = Path(bpy.data.filepath).parent
        near = [beside / "motionbooth" / clip.name, beside / clip.name] if bpy.data.filepath else []
        paths = [*([shown] if shown else []), clip, *near, *candidates(take)]
        found = next((path for path in paths if path.is_file()), None)
        if found is not None:
            relink(scene, take, found)
        elif strip is not None:
            lost.append(take.job_id)
    return lost


class SaveTransaction:
    """Prepares clips and their paths for a save of the open .blend as `blend`; then call `commit` or `rollback`.

    unsaved: the folder with the clips of unsaved files; folder: the folder for the clips of `blend`.
    error: which clips could not be copied to it; they stay where they are.
    """

    def __init__(self, blend: str, unsaved: Path, folder: Path) -> None:
        self.error: Text | None = None
        self._blend = blend
        self._copies: list[tuple[Path, Path]] = []
        self._paths = [(take, take.clip_path) for _, take in all_takes()]
        # Blender does not remap the relative paths of an unsaved file, so they may already be those of the new file.
        base = None if bpy.data.filepath else blend
        for _, take in all_takes():
            clip = clip_of(take)
            if clip.is_relative_to(unsaved.resolve()) and folder != unsaved and clip.is_file():
                clip = self._copy(clip, folder, base)
            take.clip_path = _remapped(take.clip_path, clip, blend)

    def _copy(self, clip: Path, folder: Path, base: str | None) -> Path:
        try:
            copy = copy_clip(clip, folder)
        except OSError as error:
            self.error = Text.of(
                "The clips cannot be copied to {folder} ({reason}) and stay in {place}. Free some space or choose "
                "another folder in the preferences, and save again.",
                folder=folder,
                reason=error.strerror,
                place=clip.parent,
            )
            return clip
        self._copies.append((clip, copy))
        _replace_paths(clip, copy, bpy.data.filepath, base or "")
        return copy

    def commit(self) -> None:
        """The .blend was saved: store the paths of the copies relative to it."""
        for _, copy in self._copies:
            _replace_paths(copy, copy, self._blend, bpy.data.filepath)

    def rollback(self) -> None:
        """The save failed, or saved a copy: restore the paths of the open .blend."""
        for clip, copy in self._copies:
            _replace_paths(copy, clip, self._blend, bpy.data.filepath)
        for take, path in self._paths:
            take.clip_path = path


def _remapped(path: str, clip: Path, blend: str) -> str:
    """The path to store for a clip in `blend`; a relative path stays relative, as Blender does with its own paths."""
    stored = path_for(clip, blend)
    if stored.startswith("//") or not path.startswith("//"):
        return stored
    with contextlib.suppress(ValueError):  # on another drive
        return "//" + Path(os.path.relpath(clip, Path(blend).parent)).as_posix()
    return stored


def movies(clip: Path) -> list[Path]:
    """The files of a clip that may be on a timeline, whether they exist or not: the mp4 and movies that are masters."""
    return [clip, *sorted({master.path(clip) for master in Master if not master.is_sequence})]


def copy_clip(clip: Path, folder: Path) -> Path:
    """Copy a clip with its report, master and images to `folder`. The originals stay for an undo and after a crash."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / clip.name
    for source in (report_path(clip), *reversed(movies(clip))):  # the clip last: with it, all is there
        if source.is_file() and not (folder / source.name).exists():
            _copy(source, folder / source.name)
    pictures = clip.with_suffix("")
    if pictures.is_dir():
        (folder / pictures.name).mkdir(exist_ok=True)
        for picture in pictures.iterdir():
            if not (folder / pictures.name / picture.name).exists():
                _copy(picture, folder / pictures.name / picture.name)
    return target


def _copy(source: Path, target: Path) -> None:
    """Copy a file atomically; as a hard link if possible, which takes no disk space."""
    try:
        os.link(source, target)
    except OSError:
        part = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, part)
        part.replace(target)


def _replace_paths(old: Path, new: Path, before: str, after: str) -> None:
    """Replace the path of the clip `old` and of its master by `new` in every strip and image of the open .blend.

    before, after: the .blend to which relative paths belong before and after the change.
    """
    pictures = old.with_suffix("")
    for scene in own_scenes():
        if scene.sequence_editor is None:
            continue
        for strip in compat.all_strips(scene.sequence_editor):
            if strip.type == "MOVIE" and (moved := _moved(strip.filepath, old, new, before)) is not None:
                strip.filepath = path_for(moved, after)
            elif strip.type == "IMAGE" and _is(strip.directory, pictures, before):
                strip.directory = path_for(new.with_suffix(""), after)
    for image in bpy.data.images:
        moved = _moved(image.filepath, old, new, before) if image.library is None and image.filepath else None
        if moved is not None:
            image.filepath = path_for(moved, after)


def _moved(path: str, old: Path, new: Path, blend: str) -> Path | None:
    """Where the movie of a clip at this path is now; None if it is none of them."""
    pairs = zip(movies(old), movies(new), strict=True)
    return next((after for before, after in pairs if _is(path, before, blend)), None)


def _is(path: str, clip: Path, blend: str) -> bool:
    """Whether a path, stored relative to the open file or to `blend`, is that of a clip."""
    return absolute(path) == clip or absolute(bpy.path.abspath(path, start=os.path.dirname(blend))) == clip
