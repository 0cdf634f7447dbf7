"""Registering the extension does not slow down the start of Blender."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

REGISTER = """
import sys
import bpy
import motionbooth_addon
motionbooth_addon.register()
print(sorted({"torch", "zmq"} & set(sys.modules)))
motionbooth_addon.unregister()
"""


def test_registering_loads_neither_torch_nor_zmq() -> None:
    done = subprocess.run([sys.executable, "-c", REGISTER], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_results_wait_for_the_end_of_a_modal_operator_of_ours(registered: Any) -> None:
    """One of them has a temporary scene: an undo step in between would bring it into the file."""
    from motionbooth_addon import registration
    from motionbooth_addon.jobs.ui_update import MODAL

    modal = [cls.__name__ for cls in registration.CLASSES if any("modal" in vars(base) for base in cls.__mro__)]
    assert "MOTIONBOOTH_OT_take_as_images" in modal
    assert [name for name in modal if not name.startswith(MODAL)] == []


def test_results_wait_for_the_end_of_a_stroke(registered: Any) -> None:
    """An undo step in the middle of one is not what the undo system of sculpting expects."""
    import bpy
    from motionbooth_addon.jobs.ui_update import MODAL

    strokes = bpy.ops.sculpt.brush_stroke, bpy.ops.paint.image_paint, bpy.ops.mesh.knife_tool, bpy.ops.transform.resize
    assert all(stroke.idname().startswith(MODAL) for stroke in strokes)
