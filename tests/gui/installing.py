"""A new user without a backend: the installation is confirmed, runs while the window stays responsive, is canceled."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))  # of this Blender alone

import hands


def installing() -> hands.Steps:
    os.environ["PATH"] = "/usr/bin:/bin"  # where no backend is
    # A package index that never answers: pip waits until it is canceled.
    silent = socket.create_server(("127.0.0.1", 0))
    os.environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
    os.environ["PIP_DEFAULT_TIMEOUT"] = "200"
    bpy.context.preferences.system.use_online_access = True
    yield from hands.install(connect=False)
    preferences = bpy.context.preferences.addons[hands.MODULE].preferences
    preferences.backend_wheel = hands.TASK["wheel"]
    yield from hands.open_tab("VIEW_3D")
    yield from hands.press_button("VIEW_3D", "Start Local Backend")
    yield from hands.picture("install_asked")
    hands.seen["stage before it is agreed to"] = hands.state().install_stage
    hands.press("RET")
    yield from hands.wait(lambda: hands.state().install_stage)
    longest, stages, last = 0.0, set(), time.monotonic()
    begin = last
    while time.monotonic() < begin + 10:
        yield 0.02
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        stages.add(hands.state().install_stage)
    hands.seen["longest hold"] = longest
    hands.seen["stages"] = sorted(stages)
    yield from hands.picture("installing")
    bpy.ops.motionbooth.cancel_installation()
    yield from hands.wait(lambda: hands.state().install_stage == "")
    hands.seen["notice"] = hands.state().notice


hands.perform(installing)
