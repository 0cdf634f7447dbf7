"""Differences between the Blender versions 4.2 LTS to 5.2, and nothing else."""

from __future__ import annotations

from typing import Any

import bpy

VERSION: tuple[int, int, int] = tuple(bpy.app.version)

# A path property may start with "//", the folder of the .blend; since 4.5 it has to say so.
RELATIVE_PATH: set[str] = {"PATH_SUPPORTS_BLEND_RELATIVE"} if VERSION >= (4, 5, 0) else set()


def strips(editor: bpy.types.SequenceEditor) -> Any:
    """The strips of a sequence editor (a collection with new_movie and remove)."""
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def strip_range(strip: Any) -> tuple[int, int]:
    """First and last scene frame that a strip shows, both included."""
    if VERSION >= (5, 1, 0):
        return int(strip.left_handle), int(strip.right_handle) - 1
    return int(strip.frame_final_start), int(strip.frame_final_end) - 1


def share_action(source: bpy.types.ID, target: bpy.types.ID) -> None:
    """Let `target` be animated by the action of `source`, without a copy of its keyframes."""
    animation = source.animation_data
    if animation is None or animation.action is None:
        return
    shared = target.animation_data_create()
    shared.action = animation.action
    if VERSION >= (4, 4, 0):  # actions have slots
        shared.action_slot = animation.action_slot


def paint_world(world: bpy.types.World, color: tuple[float, float, float]) -> None:
    """One colour all around. Since 5.0 every new world has nodes, and its own colour is not rendered."""
    if world.node_tree is None:
        world.color = color
    else:
        world.node_tree.nodes["Background"].inputs["Color"].default_value = (*color, 1.0)
