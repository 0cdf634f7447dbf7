"""Two styles in Advanced, each with its slider and a button that removes it."""

from __future__ import annotations

import sys
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))  # of this Blender alone

import hands


def styles() -> hands.Steps:
    yield from hands.install()
    show_only_advanced()
    yield from hands.open_tab("VIEW_3D")
    yield from hands.picture("no_styles")
    for number in (1, 2):
        file = hands.FOLDER / f"style {number}.safetensors"
        file.write_bytes(b"a LoRA")
        bpy.ops.motionbooth.add_style(filepath=str(file))
    chosen = bpy.context.scene.motionbooth.styles
    chosen[1].strength = -0.5
    yield 1
    yield from hands.picture("two_styles")
    hands.seen["styles"] = [[Path(bpy.path.abspath(style.path)).name, style.strength] for style in chosen]


def show_only_advanced() -> None:
    panels = hands.module("panels.shot")
    for name in ("backend", "subjects", "camera"):
        bpy.utils.unregister_class(getattr(panels, f"MOTIONBOOTH_PT_{name}"))
    bpy.utils.unregister_class(panels.MOTIONBOOTH_PT_advanced)
    panels.MOTIONBOOTH_PT_advanced.bl_options = set()
    bpy.utils.register_class(panels.MOTIONBOOTH_PT_advanced)


hands.perform(styles)
