"""The main job from end to end on one machine: what `motionbooth demo` runs.

A backend process on loopback, a Blender process (the bpy module) that reads the scene, sends the jobs and places the
clip, and the report on what came out. The three are processes of their own, as they are on an animator's machines.
"""

from __future__ import annotations

import json
import os
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
from motionbooth_protocol.connection import Connection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from motionbooth.evaluation.report import MotionReport
from motionbooth.evaluation.shot_folder import FilmedShot, asked_in, report_table

START_SECONDS = 60.0  # patience with a backend that is starting
STOP_SECONDS = 10.0  # patience with a process that was asked to end

ProgressLine = dict[str, Any]


class DemoReport(msgspec.Struct, frozen=True):
    """report.json: what was measured on the clip, and the seconds that each stage took."""

    motion: MotionReport
    seconds: dict[str, float]


def run_demo(scene: Path, out: Path, options: list[str], console: Console) -> DemoReport:
    """The main job into `out`; the backend's store lies in `out`/backend, so that a second run finds the subject.

    `options` go to the extension's headless job (motionbooth_addon.batch.generate_file). No process is left behind,
    whatever ends it, Ctrl+C and SIGTERM included. Raises MotionBoothError.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _make_folder(out)
    watch = _StageWatch()
    with _stage_bars(console) as bars, local_backend(out / "backend") as connection_file:

        def show(line: ProgressLine) -> None:
            watch.enter(line["stage"])
            bars.show(line)

        show({"stage": "starting Blender"})
        made = film(scene, connection_file, out, options, show)
        watch.enter("measuring")
    (shot,) = made["shots"]
    filmed = FilmedShot.load(
        Path(shot["clip"]),
        asked_in(Path(shot["shot"]), "toybox"),
        {name: list(map(Path, files)) for name, files in shot["pictures"].items()},
    )
    motion = filmed.report()
    filmed.write_contact_sheet(out / "contact_sheet.png", motion)
    report = DemoReport(motion, watch.finish())
    (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    console.print(report_table(motion, filmed.asked.shot.subjects))
    console.print(f"{sum(report.seconds.values()):.0f} s in all. See {out}/contact_sheet.png and {out}/shot.blend")
    return report


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.InvalidInput(
            f"The folder {out} cannot be made ({error.strerror}); name another one with --out."
        ) from error


class _StageWatch:
    """Seconds spent in each stage."""

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


class _StageBars:
    """One bar for each stage, the finished ones above the running one; plain lines where there is no terminal."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def show(self, line: ProgressLine) -> None:
        stage, steps = line["stage"], line.get("steps") or None
        if stage not in self._tasks:
            self._finish_bars()
            self._tasks[stage] = self._bars.add_task(stage, total=steps, left="")
            if not self._bars.console.is_terminal:
                self._bars.console.print(stage)
        left = line.get("seconds_left")
        self._bars.update(
            self._tasks[stage],
            total=steps,
            completed=line.get("step", 0),
            left="" if left is None else f"{left:.0f} s left",
        )

    def _finish_bars(self) -> None:
        for task in self._bars.tasks:
            total = task.total or 1
            self._bars.update(task.id, total=total, completed=total, left="")
            self._bars.stop_task(task.id)


@contextmanager
def _stage_bars(console: Console) -> Iterator[_StageBars]:
    columns = (
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _StageBars(progress)


@contextmanager
def local_backend(home: Path) -> Iterator[Path]:
    """Run `motionbooth serve` on a free loopback port while the block lasts; yields its connection file."""
    connection_file = home / "connection.json"
    home.mkdir(parents=True, exist_ok=True)
    left_behind = _written_at(connection_file)  # by a backend that was killed; or by one that runs, whose it stays
    log = home / "serve.log"
    command = [sys.executable, "-m", "motionbooth.cli", "serve", "--home", str(home), "--address", "tcp://127.0.0.1:*"]
    with log.open("ab") as output, _owned_process(command, stdout=output, stderr=output) as server:
        _wait_until_ready(server, connection_file, left_behind, log)
        yield connection_file


@contextmanager
def _owned_process(command: list[str], **popen: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone when the block is left, however it is left.

    In a session of its own, so that Ctrl+C reaches this process alone, which then ends the others in order.
    """
    process = subprocess.Popen(command, start_new_session=True, **popen)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _written_at(path: Path) -> int | None:
    """In nanoseconds; None where there is no such file."""
    return path.stat().st_mtime_ns if path.exists() else None


def _wait_until_ready(
    server: subprocess.Popen[bytes], connection_file: Path, left_behind: int | None, log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            last_words = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise errors.Unreachable(f"The backend did not start: {last_words[0]} (its log is {log})")
        if _written_at(connection_file) not in (None, left_behind):
            with Client(Connection.read(connection_file)) as client:
                client.ping()
            return
        time.sleep(0.1)
    raise errors.Unreachable(f"The backend was not ready after {START_SECONDS:.0f} s; its log is {log}")


def film(
    scene: Path, connection_file: Path, out: Path, options: list[str], on_progress: Callable[[ProgressLine], None]
) -> ProgressLine:
    """Run the extension's headless job on a saved .blend in a Blender process; returns the paths that it made.

    Raises the extension's own error with its sentence for a person.
    """
    command = [
        sys.executable,
        "-m",
        "motionbooth_addon.batch.generate_file",
        str(scene),
        "--connection",
        str(connection_file),
    ]
    log = out / "blender.log"
    with (
        log.open("wb") as errors_output,
        _owned_process(
            [*command, "--out", str(out), *options], stdout=subprocess.PIPE, stderr=errors_output
        ) as blender,
    ):
        assert blender.stdout is not None
        for line in blender.stdout:
            message = _progress_line(line)
            if "error" in message:
                raise _as_error(message["error"])
            if "done" in message:
                return message["done"]
            if message:
                on_progress(message)
        status = blender.wait()
    raise errors.JobFailed(f"The Blender process ended early (exit status {status}); its log is {log}")


def _progress_line(line: bytes) -> ProgressLine:
    """The JSON object on a line of the Blender process, {} for Blender's own chatter."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _as_error(reported: dict[str, str]) -> errors.MotionBoothError:
    """The error class that a code names, with the sentence that came with it."""
    code, message = reported["code"], reported["message"]
    return errors.by_code(code)(message)
