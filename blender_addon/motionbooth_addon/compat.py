"""All differences between the Blender versions 4.2 LTS to 5.2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

VERSION: tuple[int, int, int] = tuple(bpy.app.version)

# Since 4.5 a path property has to declare that it supports "//", the folder of the .blend.
RELATIVE_PATH: set[str] = {"PATH_SUPPORTS_BLEND_RELATIVE"} if VERSION >= (4, 5, 0) else set()


def strips(editor: Any) -> Any:
    """The strips of a sequence editor or a meta strip (a collection with new_movie and remove)."""
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def all_strips(editor: bpy.types.SequenceEditor) -> Any:
    """All strips, those in meta strips included."""
    return editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all


def remove_strip(editor: bpy.types.SequenceEditor, strip: Any) -> None:
    """Remove a strip from the timeline, or from the meta strip that contains it."""
    metas = [meta for meta in all_strips(editor) if meta.type == "META"]
    for owner in (editor, *metas):
        if strip in list(strips(owner)):
            strips(owner).remove(strip)
            return


def strip_range(strip: Any) -> tuple[int, int]:
    """First and last scene frame that a strip shows, both included."""
    if VERSION >= (5, 1, 0):
        return int(strip.left_handle), int(strip.right_handle) - 1
    return int(strip.frame_final_start), int(strip.frame_final_end) - 1


def show_in_sequencer(scene: bpy.types.Scene) -> None:
    """Show this scene in the sequencers if they show none. Before 5.0 they show the window's scene."""
    for workspace in bpy.data.workspaces if VERSION >= (5, 0, 0) else ():
        if workspace.sequencer_scene is None:
            workspace.sequencer_scene = scene


def sequencer_scene(context: bpy.types.Context) -> bpy.types.Scene | None:
    """The scene whose strips an open sequencer shows."""
    return context.sequencer_scene if VERSION >= (5, 0, 0) else context.scene


def shown_scene(context: bpy.types.Context) -> bpy.types.Scene:
    """The scene that the editor shows: the window's, or in a sequencer that of its strips."""
    if context.space_data is not None and context.space_data.type == "SEQUENCE_EDITOR":
        return sequencer_scene(context) or context.scene
    return context.scene


def share_action(source: bpy.types.ID, target: bpy.types.ID) -> None:
    """Animate `target` with the action of `source`, without a copy of the keyframes."""
    animation = source.animation_data
    if animation is None or animation.action is None:
        return
    shared = target.animation_data_create()
    shared.action = animation.action
    if VERSION >= (4, 4, 0):  # actions have slots
        shared.action_slot = animation.action_slot


def keyed_frames(animated: bpy.types.ID) -> set[int]:
    """The frames at which any of its properties has a keyframe, rounded."""
    animation = animated.animation_data
    if animation is None or animation.action is None:
        return set()
    return {round(key.co.x) for curve in _curves(animation) for key in curve.keyframe_points}


def _curves(animation: bpy.types.AnimData) -> Any:
    """The F-curves of an action. Since 4.4 they are in slots, so that several owners can share the action."""
    if VERSION < (4, 4, 0):
        return animation.action.fcurves
    if animation.action_slot is None:
        return []
    return [
        curve
        for layer in animation.action.layers
        for strip in layer.strips
        for bag in [strip.channelbag(animation.action_slot)]
        if bag is not None
        for curve in bag.fcurves
    ]


def node_inputs(modifier: bpy.types.Modifier) -> list[bpy.types.ID]:
    """The data-blocks that are set as inputs of a geometry nodes modifier; none of another modifier."""
    if modifier.type != "NODES" or modifier.node_group is None:
        return []
    if hasattr(modifier, "properties"):  # since 5.2
        inputs = modifier.properties.inputs
        socket_names = [described.identifier for described in inputs.bl_rna.properties]
        values = [getattr(getattr(inputs, name), "value", None) for name in socket_names]
    else:
        values = list(modifier.values())
    return [value for value in values if isinstance(value, bpy.types.ID)]


def paint_world(world: bpy.types.World, color: tuple[float, float, float]) -> None:
    """Set the background color. Since 5.0 every new world has nodes, and its own color is not rendered."""
    if world.node_tree is None:
        world.color = color
    else:
        world.node_tree.nodes["Background"].inputs["Color"].default_value = (*color, 1.0)


def output_path(path: Path) -> str:
    """A path for the scene's output, where {name} stands for a value since 4.5."""
    return str(path).replace("{", "{{").replace("}", "}}") if VERSION >= (4, 5, 0) else str(path)


def save_images(settings: bpy.types.ImageFormatSettings) -> None:
    """Make rendered frames images. Since 5.0 a scene that saves a movie has to be told before it has a file format."""
    if VERSION >= (5, 0, 0):
        settings.media_type = "IMAGE"
