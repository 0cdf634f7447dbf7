"""`motionbooth demo`: from a .blend to a clip on its timeline, on one machine.

Starts a backend on loopback and a Blender process (the bpy module) that reads the scene, sends the jobs and places the
clip, and measures the result. The three processes are separate, as they are on an animator's machines.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from motionbooth_protocol import errors
from motionbooth_protocol.client import Client
from motionbooth_protocol.connection import Connection, written_at
from motionbooth_protocol.reporting_process import ReportingProcess, ending, last_line, start
from motionbooth_protocol.reports import ProgressReport
from rich.console import Console

from motionbooth.evaluation.generated_shot import GeneratedShot, read_spec, report_table
from motionbooth.evaluation.report import MotionReport
from motionbooth.generation.video import read_clip
from motionbooth.progress.display import progress_display

START_SECONDS = 60.0  # a backend that takes longer to start has failed


class DemoReport(msgspec.Struct, frozen=True):
    """report.json: what was measured on the clip, and the seconds of each stage."""

    motion: MotionReport
    seconds: dict[str, float]


def run_demo(scene: Path, out: Path, options: list[str], console: Console) -> DemoReport:
    """Write the results into `out`. The backend's home is `out`/backend, so that a second run reuses the subject.

    `options` are for the extension's program (motionbooth_addon.batch.generate_file). No process is left behind, not
    even after Ctrl+C or SIGTERM. Raises MotionBoothError.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out.mkdir(parents=True, exist_ok=True)
    watch = _StageWatch()
    with progress_display(console) as display, local_backend(out / "backend") as connection_file:

        def show(report: ProgressReport) -> None:
            watch.enter(report.stage)
            display(report)

        show(ProgressReport("starting Blender", 0, 0))
        made = generate(scene, connection_file, out, options, show)
        watch.enter("measuring")
    if len(made["shots"]) > 1:
        raise errors.InvalidInput(
            "{scene} has {count} shots, and the demo is of one. Their clips are in {out}. For such files, "
            "use `motionbooth batch`.",
            scene=scene,
            count=len(made["shots"]),
            out=out,
        )
    (shot,) = made["shots"]
    generated = GeneratedShot.load(
        Path(shot["clip"]),
        read_spec(Path(shot["shot"]), "toybox"),
        {name: list(map(Path, files)) for name, files in shot["pictures"].items()},
    )
    motion = generated.report()
    rendered = Path(shot["clip"]).with_name("guide.png")
    guide = read_clip(rendered)[0] if generated.spec.guide is not None else None
    generated.write_contact_sheet(out / "contact_sheet.png", motion, guide)
    report = DemoReport(motion, watch.finish())
    (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    console.print(report_table(motion, generated.spec.shot.subjects))
    console.print(f"{sum(report.seconds.values()):.0f} s in all. See {out}/contact_sheet.png and {out}/shot.blend")
    return report


class _StageWatch:
    """Measures the seconds that each stage takes."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._stage = "starting the backend"
        self._since = time.monotonic()

    def enter(self, stage: str) -> None:
        now = time.monotonic()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now

    def finish(self) -> dict[str, float]:
        self.enter("")
        return {stage: round(seconds, 2) for stage, seconds in self._seconds.items()}


@contextmanager
def local_backend(home: Path) -> Iterator[Path]:
    """Run `motionbooth serve` on a free loopback port during the block; yields its connection file."""
    connection_file = home / "connection.json"
    home.mkdir(parents=True, exist_ok=True)
    old = written_at(connection_file)  # the file of a backend that was killed, or of one that is running
    log = home / "serve.log"
    command = [sys.executable, "-m", "motionbooth.cli", "serve", "--home", str(home), "--address", "tcp://127.0.0.1:*"]
    with log.open("ab") as output, ending(start(command, stdout=output, stderr=output)) as server:
        _wait_until_ready(server, connection_file, old, log)
        yield connection_file


def _wait_until_ready(server: subprocess.Popen[bytes], connection_file: Path, old: int | None, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise errors.Unreachable(
                "The backend did not start: {reason} (its log is {log})", reason=last_line(log), log=log
            )
        if written_at(connection_file) not in (None, old):
            with Client(Connection.read(connection_file)) as client:
                client.ping()
            return
        time.sleep(0.1)
    raise errors.Unreachable(
        "The backend was not ready after {seconds:.0f} s; its log is {log}", seconds=START_SECONDS, log=log
    )


def generate(
    scene: Path, connection_file: Path, out: Path, options: list[str], on_progress: Callable[[ProgressReport], None]
) -> dict[str, Any]:
    """Run the extension's program on a .blend; returns what it reports as done. Raises the error that it reports."""
    program = [sys.executable, "-m", "motionbooth_addon.batch.generate_file"]
    arguments = [str(scene), "--connection", str(connection_file), "--out", str(out), *options]
    return ReportingProcess([*program, *arguments], out / "blender.log").run(on_progress)
