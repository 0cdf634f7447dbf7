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


AFTER_A_CARELESS_SCRIPT = """
import bpy
import motionbooth_addon
motionbooth_addon.register()
bpy.app.handlers.save_pre.clear()
motionbooth_addon.unregister()
motionbooth_addon.register()
"""


def test_it_is_disabled_as_a_whole_although_a_script_has_cleared_its_handlers() -> None:
    subprocess.run([sys.executable, "-c", AFTER_A_CARELESS_SCRIPT], timeout=120, check=True)


def test_registering_loads_neither_torch_nor_zmq() -> None:
    done = subprocess.run([sys.executable, "-c", REGISTER], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def with_method(name: str) -> list[str]:
    """The names of the classes that define it."""
    from motionbooth_addon import registration

    return [cls.__name__ for cls in registration.CLASSES if any(name in vars(base) for base in cls.__mro__)]


def test_results_wait_for_the_end_of_a_modal_operator_of_ours(registered: Any) -> None:
    """One of them has a temporary scene: an undo step in between would bring it into the file."""
    from motionbooth_addon.jobs.ui_update import MODAL

    assert "MOTIONBOOTH_OT_take_as_images" in with_method("modal")
    assert [name for name in with_method("modal") if not name.startswith(MODAL)] == []


def test_a_modal_operator_of_ours_ends_what_it_began_if_blender_ends_it(registered: Any) -> None:
    assert with_method("cancel") == with_method("modal")


def test_results_wait_for_the_end_of_a_stroke(registered: Any) -> None:
    """An undo step in the middle of one is not what the undo system of sculpting expects."""
    import bpy
    from motionbooth_addon.jobs.ui_update import MODAL

    strokes = bpy.ops.sculpt.brush_stroke, bpy.ops.paint.image_paint, bpy.ops.mesh.knife_tool, bpy.ops.transform.resize
    assert all(stroke.idname().startswith(MODAL) for stroke in strokes)
