"""Every shot of many .blend files, each file in a Blender process of its own. Free of bpy.

    blender --command motionbooth batch FILE.blend ... [options]      in Blender
    python -m motionbooth_addon.batch.runner FILE.blend ... [options]        with the bpy module

What a file gets lies in OUT/NAME, see film_file.py, and two files besides: result.json, by which a second call knows
that it is done and keeps it, and blender.log. A file that is broken, or ends its Blender, does not stop the others.

On standard output: a line as each file goes from stage to stage, and a table at the end. Exit status: 0 if every shot
of every file is done, 1 if not, 2 where an option or a file's name is wrong, 130 after
Ctrl+C, which cancels the jobs under way.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._protocol.limits import MAX_SAMPLING_STEPS, MAX_SEED, MAX_TRAINING_STEPS
from .folders import folder_for_each

# Options with a number, to film_file: the least, and the most.
PASSED_ON = {
    "seed": (0, MAX_SEED),
    "training_steps": (1, MAX_TRAINING_STEPS),
    "sampling_steps": (1, MAX_SAMPLING_STEPS),
}
DEFAULT_OUT = Path("motionbooth_batch")
STOP_SECONDS = 15.0  # patience with a Blender that was asked to end


@dataclass
class Outcome:
    """What became of a file. `shots`: as film_file reports them. `error`: a sentence, empty where all went well."""

    blend: Path
    shots: list[dict[str, Any]] = field(default_factory=list)
    copy: str | None = None
    error: str = ""
    seconds: float = 0.0
    kept: bool = False  # it was done before


def main(arguments: list[str], film_file: Sequence[str], connection: Path | None = None) -> int:
    """`film_file`: the command that films one file. `connection`: used where none is given."""
    wanted = parser(connection).parse_args(arguments)
    batch = Batch(wanted, film_file)
    for ending in (signal.SIGINT, signal.SIGTERM):  # Blender has handlers of its own, which would end it at once
        signal.signal(ending, signal.default_int_handler)
    try:
        outcomes = batch.run()
    except KeyboardInterrupt:
        print("Interrupted; call it again to go on.", flush=True)
        return 130
    print(table(outcomes), flush=True)
    return 1 if any(outcome.error for outcome in outcomes) else 0


def parser(connection: Path | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="motionbooth batch", description="Film every shot of every .blend file.")
    made.add_argument("blends", type=_file, nargs="+", metavar="FILE.blend")
    made.add_argument("--connection", type=Path, default=connection, help="the backend's connection file")
    made.add_argument("--out", type=Path, default=DEFAULT_OUT, help=f"folder for what is made ({DEFAULT_OUT})")
    made.add_argument(
        "--in-place", action="store_true", help="put the strips into the files themselves, not into copies"
    )
    made.add_argument("--jobs", type=_within(1, 1000), default=2, metavar="N", help="files under way at a time (2)")
    made.add_argument("--dry-run", action="store_true", help="read and check everything; send nothing")
    made.add_argument("--again", action="store_true", help="film files again that are done")
    add_numbers(made)
    return made


def add_numbers(parser: argparse.ArgumentParser) -> None:
    """The options that film_file has, too."""
    for name, bounds in PASSED_ON.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=_within(*bounds), metavar="N", help="instead of the scene's or model's"
        )


def _file(text: str) -> Path:
    """What argparse takes for a file that is there: a slip of the pen is told before the night, not after it."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}; nothing was begun")
    return Path(text)


def _within(least: int, most: int) -> Callable[[str], int]:
    """What argparse takes for a whole number between these."""

    def whole_number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"from {least} to {most}, not {text}")
        return int(text)

    return whole_number


class Batch:
    """The files of one call. `film_file`: the command that films one."""

    def __init__(self, wanted: argparse.Namespace, film_file: Sequence[str]) -> None:
        self._wanted = wanted
        self._film_file = list(film_file)
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = threading.Event()
        self._printing = threading.Lock()

    def run(self) -> list[Outcome]:
        """Film them all; in the order in which they were given. Ctrl+C ends what runs, in order, and is raised."""
        folders = folder_for_each([blend.stem for blend in self._wanted.blends], self._wanted.out.absolute())
        pool = ThreadPoolExecutor(max_workers=self._wanted.jobs)
        try:
            futures = [pool.submit(self._film, *pair) for pair in zip(self._wanted.blends, folders, strict=True)]
            return [future.result() for future in futures]
        finally:
            self._stop()
            pool.shutdown(cancel_futures=True)

    def _film(self, blend: Path, folder: Path) -> Outcome:
        began = time.monotonic()
        outcome = Outcome(blend)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            known = self._done_before(blend, folder)
            if known is not None:
                self._say(blend, "done before")
                outcome.kept, done = True, known
            else:
                done = self._film_now(blend, folder)
                if not self._wanted.dry_run:
                    self._remember(blend, folder, done)
            outcome.shots, outcome.copy = done["shots"], done["blend"]
        except _Failed as failed:
            outcome.error = str(failed)
        except OSError as error:
            outcome.error = f"{error.filename or folder} cannot be used ({error.strerror}); choose another --out."
        if outcome.error and not self._stopped.is_set():
            self._say(blend, outcome.error)
        outcome.seconds = time.monotonic() - began
        return outcome

    def _film_now(self, blend: Path, folder: Path) -> dict[str, Any]:
        """In a Blender of its own; what it reports as done. Raises _Failed."""
        log = folder / "blender.log"
        with (
            log.open("w") as errors,
            self._process([*self._film_file, *self._options(blend, folder)], errors) as blender,
        ):
            assert blender.stdout is not None
            stage = ""
            for line in blender.stdout:
                message = _message(line)
                if "done" in message:
                    return message["done"]
                if "error" in message:
                    raise _Failed(message["error"]["message"])
                if message and message["stage"] != stage:
                    stage = message["stage"]
                    self._say(blend, stage)
            status = blender.wait()
        if self._stopped.is_set():
            raise _Failed("interrupted")
        raise _Failed(f"Blender ended before it was done (exit status {status}); its log is {log}")

    def _options(self, blend: Path, folder: Path) -> list[str]:
        options = [str(blend.absolute()), "--out", str(folder)]
        if self._wanted.connection is not None:
            options += ["--connection", str(self._wanted.connection.absolute())]
        for name in PASSED_ON:
            if (value := getattr(self._wanted, name)) is not None:
                options += [f"--{name.replace('_', '-')}", str(value)]
        return options + [
            f"--{name}" for name in ("dry-run", "in-place") if getattr(self._wanted, name.replace("-", "_"))
        ]

    @contextlib.contextmanager
    def _process(self, command: list[str], errors: Any) -> Any:
        """A process that is gone afterwards. In a session of its own: Ctrl+C reaches us alone, and we pass it on."""
        if self._stopped.is_set():
            raise _Failed("interrupted")
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,
        )
        assert process.stdout is not None
        self._running.add(process)
        try:
            yield process
        finally:
            _end(process)
            self._running.discard(process)
            process.stdout.close()

    def _stop(self) -> None:
        """Ask every process to end, and see that it does."""
        self._stopped.set()
        running = list(self._running)
        for process in running:
            with contextlib.suppress(OSError, ValueError):  # it has ended, or there is no such signal (Windows)
                process.send_signal(signal.SIGINT)
        for process in running:
            _end(process)

    def _say(self, blend: Path, words: str) -> None:
        with self._printing:
            print(f"{blend.name}: {words}", flush=True)

    # What is done already

    def _done_before(self, blend: Path, folder: Path) -> dict[str, Any] | None:
        """What an earlier call reported of this file as it is now, with these options, if all of it is still there."""
        if self._wanted.again or self._wanted.dry_run:
            return None
        try:
            kept = json.loads((folder / "result.json").read_text())
            if kept["source"] != _digest(blend) or kept["options"] != self._numbers():
                return None
            done = kept["done"]
            files = [done["blend"], *(shot["clip"] for shot in done["shots"])]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return done if all(Path(file).is_file() for file in files) else None

    def _remember(self, blend: Path, folder: Path, done: dict[str, Any]) -> None:
        """After filming in place the source is the file with its strips, which is not to be filmed again."""
        kept = {"source": _digest(blend), "options": self._numbers(), "done": done}
        part = folder / ".result.json.part"
        part.write_text(json.dumps(kept, indent=1))
        part.replace(folder / "result.json")

    def _numbers(self) -> dict[str, Any]:
        return {name: getattr(self._wanted, name) for name in (*PASSED_ON, "in_place")}


class _Failed(Exception):
    """Why a file was not filmed, a sentence."""


def _message(line: str) -> dict[str, Any]:
    """One line of a film_file process; {} for anything else."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _end(process: subprocess.Popen[str]) -> None:
    """Wait for a process that is ending; kill it, with what it started, where it does not."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def table(outcomes: Sequence[Outcome]) -> str:
    """One line for each shot, or for a file that has none."""
    rows = [("file", "scene", "frames", "state", "time", "result")]
    for outcome in outcomes:
        took = "" if outcome.kept else f"{outcome.seconds:.0f} s"
        if outcome.error:
            rows.append((outcome.blend.name, "", "", "failed", took, outcome.error))
        for shot in outcome.shots:
            state = "done before" if outcome.kept else "done" if shot["clip"] else "checked"
            rows.append((outcome.blend.name, shot["scene"], shot["frames"], state, took, shot["clip"] or shot["shot"]))
            rows += [("", "", "", "", "", f"! {warning}") for warning in shot["warnings"]]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    ]
    shots, failed = sum(len(outcome.shots) for outcome in outcomes), sum(bool(outcome.error) for outcome in outcomes)
    return "\n".join([*lines, f"shots: {shots}; files: {len(outcomes)}, of which failed: {failed}"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], [sys.executable, "-m", f"{__package__}.generate_file"]))
