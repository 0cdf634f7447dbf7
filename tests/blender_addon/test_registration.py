"""Registering the extension does not slow down the start of Blender."""

from __future__ import annotations

import subprocess
import sys

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
