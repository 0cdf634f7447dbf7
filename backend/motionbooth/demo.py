"""The main job from end to end on one machine: what `motionbooth demo` runs.

A backend process on loopback, a Blender process (the bpy module) that reads the scene, sends the jobs and places the clip,
and the report on what came out. The three are processes of their own, as they are on an animator's machines.
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

from motionbooth_protocol import errors
from motionbooth_protocol.client import Client
from motionbooth_protocol.connection import Connection

START_SECONDS = 60.0  # patience with a backend that is starting
STOP_SECONDS = 10.0  # patience with a process that was asked to end

ProgressLine = dict[str, object]


@contextmanager
def local_backend(home: Path) -> Iterator[Path]:
    """Run `motionbooth serve` on a free loopback port while the block lasts; yields its connection file."""
    connection_file = home / "connection.json"
    connection_file.unlink(missing_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    log = home / "serve.log"
    command = [sys.executable, "-m", "motionbooth.cli", "serve", "--home", str(home), "--address", "tcp://127.0.0.1:*"]
    with log.open("ab") as output, _owned_process(command, stdout=output, stderr=output) as server:
        _wait_until_ready(server, connection_file, log)
        yield connection_file


@contextmanager
def _owned_process(command: list[str], **popen: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone when the block is left, however it is left.

    In a session of its own, so that Ctrl+C reaches this process alone, which then ends the others in order.
    """
    process = subprocess.Popen(command, start_new_session=True, **popen)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], connection_file: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            last_words = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise errors.Unreachable(f"The backend did not start: {last_words[0]} (its log is {log})")
        if connection_file.exists():
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
    command = [sys.executable, "-m", "motionbooth_addon.batch", str(scene), "--connection", str(connection_file)]
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
                return message["done"]  # type: ignore[return-value]
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


def _as_error(reported: object) -> errors.MotionBoothError:
    """The error class that a code names, with the sentence that came with it."""
    code, message = reported["code"], reported["message"]  # type: ignore[index]
    return errors.by_code(code)(message)
