"""The panels of a shot: backend, subjects, camera and generation."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import bpy

from .._protocol.connection import written_at
from .._protocol.phrases import phrase_spans
from .._protocol.picture_files import pictures_with_masks
from .._protocol.text import Text
from ..capture import framing, shot_cache, shots
from ..guide.request import rendered_parts
from ..i18n.translation import translate
from ..jobs.specs import phrase_of, trained_otherwise
from ..operators.jobs import last_guide, untrained
from ..preferences import preferences
from ..thumbnails import icon
from ..turntable import pictures
from ..turntable.background_render import PREVIEW
from ..ui_state import state
from .base import InView, property_column, sentence
from .jobs import draw_picture, draw_unfinished

_CONNECTIONS = {
    "NONE": ("Not connected", "UNLINKED"),
    "STARTING": ("The local backend is starting", "TIME"),
    "CONNECTING": ("Connecting", "TIME"),
    "CONNECTED": ("", "LINKED"),
    "DISCONNECTED": ("", "ERROR"),
    "OFFLINE": ("", "ERROR"),
}


class MOTIONBOOTH_PT_backend(InView, bpy.types.Panel):
    bl_label = "Backend"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        shown = state()
        words, symbol = _CONNECTIONS[shown.connection]
        elsewhere = bool(preferences().connection_file)
        row = layout.row()
        sentence(row.column(), words or shown.connection_text, context.region, symbol)
        if bpy.ops.motionbooth.stop_local_backend.poll():  # not in place of Start: a double click must not stop it
            row.operator("motionbooth.stop_local_backend", text="", icon="CANCEL")
        if shown.install_stage:
            row = layout.row(align=True)
            text = f"{translate(shown.install_stage)} {shown.install_factor:.0%}"
            row.progress(factor=shown.install_factor, text=text)
            row.operator("motionbooth.cancel_installation", text="", icon="X")
        elif shown.connection != "CONNECTED" and not elsewhere:  # disabled while it starts
            layout.operator("motionbooth.start_local_backend", icon="PLAY")
        if elsewhere:
            layout.operator("motionbooth.use_local_backend", icon="HOME")
        if shown.connection != "CONNECTED":
            row = layout.row(align=True)
            row.operator("motionbooth.connect_by_file", icon="NETWORK_DRIVE")
            row.operator("motionbooth.connect_by_address", text="", icon="URL")
            row.operator("motionbooth.export_public_key", text="", icon="KEYINGSET")
        if shown.connection == "OFFLINE":
            layout.operator("extensions.userpref_allow_online", text="Allow Online Access", icon="INTERNET")


class MOTIONBOOTH_UL_subjects(bpy.types.UIList):
    def draw_item(
        self, context: Any, layout: Any, data: Any, item: Any, icon: int, owner: Any, active: str, index: int
    ) -> None:
        row = layout.row(align=True)
        color = row.row()
        color.ui_units_x = 1.0
        color.prop(item, "color", text="")
        row.prop(item, "name", text="", emboss=False)
        row.label(text=f"{item.token} {item.class_word}".strip(), translate=False)
        if pictures.needs_training(item):
            row.label(text="", icon="RADIOBUT_OFF")
        else:
            row.label(text="", icon="CHECKMARK")


class MOTIONBOOTH_PT_subjects(InView, bpy.types.Panel):
    bl_label = "Subjects"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        shot = context.scene.motionbooth
        row = layout.row()
        row.template_list("MOTIONBOOTH_UL_subjects", "", shot, "subjects", shot, "active_subject", rows=3)
        buttons = row.column(align=True)
        buttons.operator("motionbooth.add_subject_box", text="", icon="ADD")
        buttons.operator("motionbooth.remove_subject", text="", icon="REMOVE")
        buttons.separator()
        buttons.operator("motionbooth.add_to_prompt", text="", icon="TEXT")
        column = layout.column(align=True)
        column.operator("motionbooth.add_subject_box", icon="SELECT_SET")
        column.operator("motionbooth.use_selected_object", icon="OBJECT_DATA")
        if not shot.subjects:
            text = "No subjects yet. Add a subject box, or use the active object as a subject."
            sentence(layout, text, context.region, "INFO")
        elif shot.active_subject < len(shot.subjects):
            self._draw_subject(context, shot.subjects[shot.active_subject])

    def _draw_subject(self, context: bpy.types.Context, subject: bpy.types.PropertyGroup) -> None:
        column = property_column(self.layout)
        names = column.column(align=True)
        names.prop(subject, "class_word")
        names.prop(subject, "token")
        column.prop(subject, "object")
        if not subject.token:
            return
        source = column.column(align=True)
        source.prop(subject, "training_object")
        if subject.training_object is None:
            row = source.row(align=True)
            row.prop(subject, "training_images")
            row.operator("motionbooth.choose_training_images", text="", icon="FILE_IMAGE")
            if subject.training_images:
                draw_images(self.layout, bpy.path.abspath(subject.training_images))
        row = self.layout.row()
        row.scale_y = 1.3
        if subject.weights:
            text = "Train Again"
        elif subject.training_object is not None:
            text = "Train on 3D Object"
        else:
            text = "Train on Images"
        row.operator("motionbooth.train_subject", text=text, icon="MOD_ARMATURE")
        if otherwise := trained_otherwise(context.scene, subject):
            sentence(self.layout, otherwise, context.region, "ERROR")


def example(shot: bpy.types.PropertyGroup) -> str:
    """An example prompt for this shot, shown as a placeholder."""
    if not shot.subjects:
        return "a dog runs on the beach"
    return f"a {phrase_of(shot.subjects[0]) or 'dog'} runs on the beach"


def draw_images(layout: bpy.types.UILayout, folder: str) -> None:
    """Thumbnails of the first images of a folder, each with its mask below it if there is one."""
    grid = layout.grid_flow(row_major=True, columns=4, even_columns=True, align=True)
    for image, mask in _first_images(folder, written_at(Path(folder))):
        cell = grid.column(align=True)
        cell.template_icon(icon_value=icon(str(image)), scale=3)
        if mask is not None:
            cell.template_icon(icon_value=icon(str(mask)), scale=3)


@lru_cache(maxsize=8)
def _first_images(folder: str, _changed: int | None) -> list[tuple[Path, Path | None]]:
    """The first images of a folder and their masks. To list a large one takes longer than a redraw may."""
    try:
        return pictures_with_masks(Path(folder))[:8]
    except OSError:
        return []


class MOTIONBOOTH_PT_trained(InView, bpy.types.Panel):
    bl_label = "Trained Subjects"
    bl_parent_id = "MOTIONBOOTH_PT_subjects"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        if not state().trained:
            self.layout.label(text="No trained subjects")
        for row in state().trained:
            line = self.layout.row()
            if number := icon(row.picture):
                line.template_icon(icon_value=number, scale=2)
            line.label(text=f"{row.name} ({row.token} {row.class_word})", translate=False)
            line.operator("motionbooth.use_trained", text="Use").weights = row.weights


class MOTIONBOOTH_PT_warnings(InView, bpy.types.Panel):
    bl_label = "Warnings"
    bl_parent_id = "MOTIONBOOTH_PT_camera"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        cache = shot_cache.get(context.scene)
        return bool(context.scene.motionbooth.subjects and (cache.warnings or cache.error))

    def draw(self, context: bpy.types.Context) -> None:
        cache = shot_cache.get(context.scene)
        if cache.error:
            sentence(self.layout, cache.error, context.region, "ERROR")
        for warning in cache.warnings:
            box = self.layout.box()
            sentence(box, warning.sentence, context.region, "ERROR")
            go = box.operator(
                "motionbooth.go_to_frame", text=translate("Frame {frame}", frame=warning.first), translate=False
            )
            go.frame = warning.first


class MOTIONBOOTH_PT_generate(InView, bpy.types.Panel):
    bl_label = "Generate"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        shot = context.scene.motionbooth
        column = layout.column(align=True)
        column.label(text="Prompt")
        column.prop(shot, "prompt", text="", placeholder=example(shot))
        self._draw_missing(context, shot)
        column = property_column(layout)
        if not state().models:  # not connected yet: a search field would mark every name as invalid
            column.prop(shot, "model")
        else:
            column.prop_search(shot, "model", state(), "models")
        if (model := state().models.get(shot.model)) is not None:
            size = translate(
                "{frames} frames at {fps:g} fps, {width} x {height}",
                frames=model.frames,
                fps=model.fps,
                width=model.width,
                height=model.height,
            )
            column.label(text=size, translate=False)
            if (note := shots.length_note(context.scene, model)) is not None:
                column.prop(shot, "long_shot")
                sentence(layout, note, context.region, "INFO")
                column = property_column(layout)
        column.prop(shot, "framing")
        motion = shot_cache.get(context.scene).motion if shot.subjects else None
        if motion is not None and (words := framing.explanation(motion.frame)):
            sentence(layout, words, context.region, "INFO")
            column = property_column(layout)
        column.prop(shot, "quality")
        if shot.quality == "CUSTOM":
            column.prop(shot, "steps")
        column.prop(shot, "take_count")
        column.prop(shot, "master")
        row = layout.row()
        row.scale_y = 1.6
        text = "Train and Generate" if untrained(context.scene) else "Generate"
        row.operator("motionbooth.generate", text=text, icon="RENDER_ANIMATION")
        draw_unfinished(layout)

    def _draw_missing(self, context: bpy.types.Context, shot: bpy.types.PropertyGroup) -> None:
        """A hint about the first subject that the prompt does not name."""
        for subject in shot.subjects:
            phrase = phrase_of(subject)
            if subject.class_word and not phrase_spans(shot.prompt, phrase):
                hint = Text.of(
                    'Subject "{subject}" is not in the prompt. Add "{phrase}" to it.',
                    subject=subject.name,
                    phrase=phrase,
                )
                sentence(self.layout, hint, context.region, "INFO")
                return


class MOTIONBOOTH_PT_advanced(InView, bpy.types.Panel):
    bl_label = "Advanced"
    bl_parent_id = "MOTIONBOOTH_PT_generate"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        shot = context.scene.motionbooth
        column = property_column(self.layout)
        column.prop(shot, "random_seed")
        row = column.row()
        row.active = not shot.random_seed
        row.prop(shot, "seed")
        column.prop(shot, "negative_prompt")
        column.prop(shot, "background_phrase")
        for index, style in enumerate(shot.styles):
            own = column.column(align=True)
            row = own.row(align=True)
            row.prop(style, "path")
            row.operator("motionbooth.remove_style", text="", icon="X").index = index
            own.prop(style, "strength", slider=True)
        column.operator("motionbooth.add_style", icon="ADD")
        column.prop(shot, "box_control")
        column.prop(shot, "camera_control")
        column.prop(shot, "hold_frames")
        column.prop(shot, "upscale")


class MOTIONBOOTH_PT_guide(InView, bpy.types.Panel):
    bl_label = "Scene Guide"
    bl_parent_id = "MOTIONBOOTH_PT_generate"
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header(self, context: bpy.types.Context) -> None:
        self.layout.prop(context.scene.motionbooth, "use_guide", text="")

    def draw(self, context: bpy.types.Context) -> None:
        shot = context.scene.motionbooth
        column = property_column(self.layout)
        column.active = shot.use_guide
        column.prop(shot, "guide_clip")
        column.prop(shot, "guide_subject")
        column.prop(shot, "guide_background")
        if shot.use_guide and not shot.guide_clip:
            self._draw_render(context, shot)

    def _draw_render(self, context: bpy.types.Context, shot: bpy.types.PropertyGroup) -> None:
        hidden = next((subject for subject in shot.subjects if not rendered_parts(subject)), None)
        if hidden is not None:
            text = 'The proxy object of "{subject}" is not rendered: only the background follows the render.'
            sentence(self.layout, Text.of(text, subject=hidden.name), context.region, "INFO")
        if (guide := last_guide(context.scene)) is not None:
            picture = str(Path(guide.folder) / PREVIEW)
            draw_picture(self.layout, "guide", picture, context.region, guide.size[0] / guide.size[1])
            self.layout.operator("motionbooth.render_guide_again", icon="FILE_REFRESH")


class MOTIONBOOTH_PT_engines(InView, bpy.types.Panel):
    bl_label = "Other Engines"
    bl_parent_id = "MOTIONBOOTH_PT_generate"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        column = property_column(self.layout)
        column.prop(context.scene.motionbooth, "engine")
        column = self.layout.column(align=True)
        column.operator("motionbooth.export_shot", icon="EXPORT")
        column.operator("motionbooth.import_clip", icon="IMPORT")


class MOTIONBOOTH_PT_camera(InView, bpy.types.Panel):
    bl_label = "Camera"

    def draw(self, context: bpy.types.Context) -> None:
        shot = context.scene.motionbooth
        column = self.layout.column()
        column.use_property_split = True
        column.prop(shot, "camera_mode", expand=True)
        if shot.camera_mode == "MEASURED":
            column.prop(shot, "background_distance", text="Background")
            column.prop(shot, "use_parallax")
        else:
            column.prop(shot, "pan")
        if shot.subjects:
            draw_reading(self.layout, shot_cache.get(context.scene), context.region)


def draw_reading(layout: bpy.types.UILayout, cache: shot_cache.ShotCache, region: bpy.types.Region) -> None:
    """The progress of reading the shot, and what needs playback."""
    if cache.progress is not None:
        layout.progress(factor=cache.progress, text="Reading Shot")
    played = [method for method in cache.motion.read_methods if method.playback_reason] if cache.motion else []
    incomplete = cache.motion is not None and cache.motion.incomplete
    for method in played:
        done = "{subject}: read with playback ({reason})"
        pending = "{subject}: not read, needs playback ({reason})"
        text = Text.of(pending if incomplete else done, subject=method.name, reason=method.playback_reason)
        sentence(layout, text, region, "PHYSICS")
    if cache.motion is not None and not played:
        layout.label(text="Read without playback", icon="CHECKMARK")
    if incomplete or cache.needs_playback:
        layout.operator("motionbooth.read_by_playing", icon="PLAY")


CLASSES = (
    MOTIONBOOTH_UL_subjects,
    MOTIONBOOTH_PT_backend,
    MOTIONBOOTH_PT_subjects,
    MOTIONBOOTH_PT_trained,
    MOTIONBOOTH_PT_camera,
    MOTIONBOOTH_PT_warnings,
    MOTIONBOOTH_PT_generate,
    MOTIONBOOTH_PT_guide,
    MOTIONBOOTH_PT_engines,
    MOTIONBOOTH_PT_advanced,
)
