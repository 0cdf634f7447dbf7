"""Takes, strips and clip files stay together, wherever the .blend goes.

A take's clip is named twice: by its strip, whose path Blender itself keeps right when the .blend is saved elsewhere,
and by the take, whose path nobody keeps right but us. The clip of a .blend that was never saved is among the user's own
files until there is a folder to put it in.
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
from . import colors
from .take_motion import report_path

JOB = "motionbooth_job"  # custom property of a take's strip: the job that made it


def clip_of(take: bpy.types.PropertyGroup) -> Path:
    """Where the clip should be."""
    return absolute(take.clip_path)


def absolute(path: str) -> Path:
    """A path as Blender keeps it, which may be relative to the open .blend."""
    return Path(bpy.path.abspath(path)).resolve()


def path_for(clip: Path, blend: str | None = None) -> str:
    """Relative to the .blend (None: the open one) where both are under one folder, to be moved together."""
    blend = bpy.data.filepath if blend is None else blend
    folder = Path(blend).parent.resolve()
    if blend and clip.resolve().is_relative_to(folder):
        return "//" + clip.resolve().relative_to(folder).as_posix()
    return str(clip.resolve())


def strip_of(scene: bpy.types.Scene, job: str) -> Any | None:
    """The strip of a take, whatever its user has named it."""
    if scene.sequence_editor is None:
        return None
    return next((strip for strip in compat.all_strips(scene.sequence_editor) if strip.get(JOB) == job), None)


def all_takes() -> Iterator[tuple[bpy.types.Scene, bpy.types.PropertyGroup]]:
    """Of the open .blend, without those in its libraries."""
    for scene in bpy.data.scenes:
        if scene.library is None:
            for take in scene.motionbooth.takes:
                yield scene, take


def relink(scene: bpy.types.Scene, take: bpy.types.PropertyGroup, clip: Path) -> None:
    """Have a take and its strip show the clip at another place."""
    take.clip_path = path_for(clip)
    strip = strip_of(scene, take.job_id)
    if strip is not None and strip.type == "MOVIE":
        strip.filepath = take.clip_path  # where it is set, Blender reads the file anew
        colors.set_color_space(scene, strip)


def relink_missing(known: Callable[[bpy.types.PropertyGroup], list[Path]]) -> list[str]:
    """Find the clips of the open .blend whose files are not where they should be.

    `known`: where a take's clip may be besides. Returns the jobs whose strips have lost their clip.
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
        places = [*([shown] if shown else []), clip, *near, *known(take)]
        found = next((place for place in places if place.is_file()), None)
        if found is not None:
            relink(scene, take, found)
        elif strip is not None:
            lost.append(take.job_id)
    return lost


class SaveTransaction:
    """One saving of the open .blend as `blend`, from before it is written to after it.

    `homeless`: where the clips of unsaved files are; `folder`: where those of `blend` go. `trouble` says which clips
    could not be put there, and stay where they are.
    """

    def __init__(self, blend: str, homeless: Path, folder: Path) -> None:
        self.trouble = ""
        self._blend = blend
        self._carried: list[tuple[Path, Path]] = []
        self._paths = [(take, take.clip_path) for _, take in all_takes()]
        # Of a file that was never saved, Blender leaves relative paths as they are: they can be the new file's already.
        base = None if bpy.data.filepath else blend
        for _, take in all_takes():
            clip = clip_of(take)
            if clip.is_relative_to(homeless.resolve()) and folder != homeless and clip.is_file():
                clip = self._carry(clip, folder, base)
            take.clip_path = _as_before(take.clip_path, clip, blend)

    def _carry(self, clip: Path, folder: Path, base: str | None) -> Path:
        try:
            carried = copy_clip(clip, folder)
        except OSError as error:
            self.trouble = (
                f"The clips cannot be put into {folder} ({error.strerror}) and stay in {clip.parent}; free some space "
                "or choose another folder in the preferences, and save again."
            )
            return clip
        self._carried.append((clip, carried))
        _show_instead(clip, carried, bpy.data.filepath, base or "")
        return carried

    def done(self) -> None:
        """It was written. Paths that go with the .blend are relative from now on."""
        for _, carried in self._carried:
            _show_instead(carried, carried, self._blend, bpy.data.filepath)

    def undone(self) -> None:
        """It was not, or a copy was: the open .blend is where it was, and so are its clips."""
        for clip, carried in self._carried:
            _show_instead(carried, clip, self._blend, bpy.data.filepath)
        for take, path in self._paths:
            take.clip_path = path


def _as_before(path: str, clip: Path, blend: str) -> str:
    """The path of a clip for a .blend at another place: relative if it was, as Blender does with its own paths."""
    made = path_for(clip, blend)
    if made.startswith("//") or not path.startswith("//"):
        return made
    with contextlib.suppress(ValueError):  # on another drive
        return "//" + Path(os.path.relpath(clip, Path(blend).parent)).as_posix()
    return made


def copy_clip(clip: Path, folder: Path) -> Path:
    """The clip and all that lies beside it for it, in `folder`, too: an undo, and a crash, find the old one."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / clip.name
    for source in (report_path(clip), clip):
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
    """Without taking more of the disk where that can be; whole or not at all."""
    try:
        os.link(source, target)
    except OSError:
        part = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, part)
        part.replace(target)


def _show_instead(old: Path, new: Path, before: str, after: str) -> None:
    """Every strip and picture of the open .blend that shows the clip at `old` shows it at `new`.

    `before`, `after`: the .blend to which relative paths belong before that, and after.
    """
    pictures = old.with_suffix("")
    for scene in bpy.data.scenes:
        if scene.sequence_editor is None or scene.library is not None:
            continue
        for strip in compat.all_strips(scene.sequence_editor):
            if strip.type == "MOVIE" and _is(strip.filepath, old, before):
                strip.filepath = path_for(new, after)
            elif strip.type == "IMAGE" and _is(strip.directory, pictures, before):
                strip.directory = path_for(new.with_suffix(""), after)
    for image in bpy.data.images:
        if image.library is None and image.filepath and _is(image.filepath, old, before):
            image.filepath = path_for(new, after)


def _is(path: str, clip: Path, blend: str) -> bool:
    """Whether a path, as Blender keeps it in the open file or in `blend`, is that of a clip."""
    return absolute(path) == clip or absolute(bpy.path.abspath(path, start=os.path.dirname(blend))) == clip
