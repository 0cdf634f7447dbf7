"""How long the extension's timer blocks Blender's main thread. Needs bpy; run in a separate process."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.motion import CameraPath, Shot

from motionbooth_lab.rig.backend import RunningBackend

JOBS = 50  # each reports ten times a second
BYTES = 200_000_000
TICKS = 100  # at least
PAUSE = 0.005  # seconds between ticks: far less than in Blender, to get many during the download
LONGEST = 300.0  # seconds


def measure_ticks() -> dict[str, float]:
    """Measure ticks while a file of 200 MB is downloaded from another process and 50 jobs report progress."""
    with tempfile.TemporaryDirectory(prefix="motionbooth_") as folder:
        backend = RunningBackend(Path(folder) / "home", "motionbooth_lab.rig.pulse_server", str(JOBS))
        backend.start()
        try:
            ticks = _ticks(backend, Path(folder))
        finally:
            backend.end()
    return {"tick_p99_ms": 1000 * statistics.quantiles(ticks, n=100)[98]}


def _ticks(backend: RunningBackend, folder: Path) -> list[float]:
    """Duration of each tick in seconds."""
    import bpy
    import motionbooth_addon

    bpy.context.preferences.addons.new().module = "motionbooth_addon"
    motionbooth_addon.register()
    # These modules are only importable with the extension.
    from motionbooth_addon._protocol.jobs import Blob, GenerateSpec
    from motionbooth_addon.jobs import controller, events
    from motionbooth_addon.preferences import preferences
    from motionbooth_addon.ui_state import state

    (folder / "large").write_bytes(os.urandom(BYTES))
    with backend.client() as client:
        sha256 = client.upload(folder / "large")
    preferences().connection_file = str(backend.connection_file)
    at_work = controller.JobController(folder / "user")
    try:
        _tick_until(at_work.tick, lambda: state().connection == "CONNECTED")
        shot = Shot("shot", 1, 24, 24.0, 960, 640, CameraPath.still(8))
        for number in range(JOBS):
            spec = GenerateSpec(shot, prompt="a dog", model="small", seed=number)  # type: ignore[arg-type]
            at_work.submit(bpy.context.scene, spec, f"shot {number}")
        _tick_until(at_work.tick, lambda: all(row.stage for row in state().jobs))
        assert at_work.jobs.threads is not None
        copy = folder / "copy"
        at_work.jobs.threads.send(events.Fetch(new_job_id(), Blob("clip", sha256, BYTES), copy))
        return _tick_until(at_work.tick, copy.exists, TICKS)
    finally:
        at_work.close()


def _tick_until(tick: Callable[[], float], done: Callable[[], bool], least: int = 1) -> list[float]:
    """Tick until `done`. Returns the duration of each tick in seconds. Raises TimeoutError."""
    ticks: list[float] = []
    ends = time.monotonic() + LONGEST
    while not done() or len(ticks) < least:
        if time.monotonic() > ends:
            raise TimeoutError(f"not done within {LONGEST:.0f} s")
        began = time.perf_counter()
        tick()
        ticks.append(time.perf_counter() - began)
        time.sleep(PAUSE)
    return ticks
