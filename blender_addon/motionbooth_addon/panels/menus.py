"""Menus, which also make the operators searchable with F3, and shortcuts."""

from __future__ import annotations

import bpy


class MOTIONBOOTH_MT_shot(bpy.types.Menu):
    bl_label = "MotionBooth"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator("motionbooth.add_subject_box", icon="SELECT_SET")
        layout.operator("motionbooth.use_selected_object", icon="OBJECT_DATA")
        layout.operator("motionbooth.remove_subject")
        layout.operator("motionbooth.add_to_prompt")
        layout.separator()
        layout.operator("motionbooth.train_subject")
        layout.operator("motionbooth.generate", icon="RENDER_ANIMATION")
        layout.operator("motionbooth.export_shot")
        layout.operator("motionbooth.import_clip")
        layout.separator()
        layout.operator("motionbooth.start_local_backend")
        layout.operator("motionbooth.stop_local_backend")
        layout.operator("motionbooth.connect_by_file")
        layout.operator("motionbooth.connect_by_address")
        layout.operator("motionbooth.export_public_key")


class MOTIONBOOTH_MT_takes(bpy.types.Menu):
    bl_label = "MotionBooth"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator("motionbooth.generate", icon="RENDER_ANIMATION")
        layout.separator()
        layout.operator("motionbooth.activate_take")
        layout.operator("motionbooth.star_take")
        layout.operator("motionbooth.restore_take_settings")
        layout.operator("motionbooth.take_as_background")
        layout.operator("motionbooth.take_as_images")
        layout.operator("motionbooth.remove_take")


def in_object_menu(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.separator()
    self.layout.menu("MOTIONBOOTH_MT_shot")


def in_strip_menu(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.separator()
    self.layout.menu("MOTIONBOOTH_MT_takes")


CLASSES = (MOTIONBOOTH_MT_shot, MOTIONBOOTH_MT_takes)

# Keymap, space, operator and key, all with Shift and Alt. Blender itself does not use these combinations.
KEYS = (
    ("3D View", "VIEW_3D", "motionbooth.add_subject_box", "B"),
    ("3D View", "VIEW_3D", "motionbooth.generate", "F"),
    ("Sequencer", "SEQUENCE_EDITOR", "motionbooth.generate", "F"),
)
_keys: list[tuple[bpy.types.KeyMap, bpy.types.KeyMapItem]] = []


def register() -> None:
    bpy.types.VIEW3D_MT_object.append(in_object_menu)
    bpy.types.SEQUENCER_MT_strip.append(in_strip_menu)
    keys = bpy.context.window_manager.keyconfigs.addon
    if keys is None:  # in background mode
        return
    for name, space, operator, key in KEYS:
        keymap = keys.keymaps.new(name=name, space_type=space)
        _keys.append((keymap, keymap.keymap_items.new(operator, key, "PRESS", shift=True, alt=True)))


def unregister() -> None:
    for keymap, item in _keys:
        keymap.keymap_items.remove(item)
    _keys.clear()
    bpy.types.SEQUENCER_MT_strip.remove(in_strip_menu)
    bpy.types.VIEW3D_MT_object.remove(in_object_menu)
