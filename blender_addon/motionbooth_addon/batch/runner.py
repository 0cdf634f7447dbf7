"""Generates every shot of many .blend files, each file in its own Blender process. No bpy.

    blender --command motionbooth batch FILE.blend ... [options]              in Blender
    motionbooth batch FILE.blend ... [options]                                  with the backend and the bpy module
    python -m motionbooth_addon.batch.runner FILE.blend ... [options]          the same

The results of a file are in OUT/NAME, see generate_file.py, with result.json, by which a second call recognizes a
finished file and skips it, and blender.log. A broken file, or one that crashes its Blender, does not stop the others.

Standard output has a line for each stage of a file, and a table at the end. Exit status: 0 if all shots of all files
are done, 1 if not, 2 if an option or a file name is wrong, 130 after Ctrl+C, which cancels the unfinished jobs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from msgspec import convert

from .._protocol.errors import MotionBoothError, from_os_error
from .._protocol.limits import MAX_SAMPLING_STEPS, MAX_SEED, MAX_TRAINING_STEPS
from .._protocol.long_shots import LongShot
from .._protocol.masters import Master
from .._protocol.reporting_process import ReportingProcess
from .._protocol.reports import ProgressReport
from .._protocol.text import Text
from ..user_data import data_folder

# Numeric options that are passed on to generate_file: the smallest and the largest value.
NUMBERS: dict[str, tuple[float, float]] = {
    "seed": (0, MAX_SEED),
    "training_steps": (1, MAX_TRAINING_STEPS),
    "sampling_steps": (1, MAX_SAMPLING_STEPS),
    "subject_strength": (0.0, 1.0),  # of the guide
    "background_strength": (0.0, 1.0),
}
REPLACEMENTS = (*NUMBERS, "model", "guide", "long_shot", "master")
DEFAULT_OUT = Path("motionbooth_batch")
Show = Callable[[Text], str]


@dataclass
class Outcome:
    """The outcome of one file. `shots`: as generate_file reports them; `error`: None on success."""

    blend: Path
    shots: list[dict[str, Any]] = field(default_factory=list)
    copy: str | None = None
    error: Text | None = None
    seconds: float = 0.0
    skipped: bool = False  # an earlier call has finished it


def main(arguments: list[str], generate_file: Sequence[str], connection: Path | None = None, show: Show = str) -> int:
    """generate_file: the command that generates the shots of one file.

    connection: the default for --connection, None for the local backend's.
    show: gives a text in the user's language.
    """
    wanted = parser(connection or data_folder() / "connection.json").parse_args(arguments)
    batch = Batch(wanted, generate_file, show)
    for ending in (signal.SIGINT, signal.SIGTERM):  # Blender's own handlers would end it at once
        signal.signal(ending, signal.default_int_handler)
    try:
        outcomes = batch.run()
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again to continue.", flush=True)
        return 130
    print(table(outcomes, show), flush=True)
    return 1 if any(outcome.error for outcome in outcomes) else 0


def parser(connection: Path) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="motionbooth batch", description="Generate every shot of every .blend file.")
    made.add_argument("blends", type=_file, nargs="+", metavar="FILE.blend")
    made.add_argument(
        "--connection", type=Path, default=connection, help="the backend's connection file (default: %(default)s)"
    )
    made.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        help="output folder, with a folder for each file (default: %(default)s)",
    )
    made.add_argument(
        "--in-place", action="store_true", help="put the strips into the files themselves, not into copies"
    )
    made.add_argument(
        "--jobs",
        type=_within(1, 1000),
        default=2,
        metavar="N",
        help="files to process at a time (default: %(default)s)",
    )
    made.add_argument("--dry-run", action="store_true", help="read and validate everything; send nothing")
    made.add_argument("--again", action="store_true", help="do not skip files that are finished")
    add_replacements(made)
    return made


def add_replacements(parser: argparse.ArgumentParser) -> None:
    """The options that replace settings of the scene or the model; generate_file has them, too."""
    parser.add_argument("--model", metavar="NAME", help="base model (default: the scene's)")
    parser.add_argument(
        "--guide",
        type=_absolute,
        metavar="CLIP",
        help="clip or picture to start from (default: the scene's, or its render)",
    )
    parser.add_argument(
        "--long-shot",
        choices=get_args(LongShot),
        help="of a shot that is longer than the model's clip: spread and hold the clip's frames, or generate all in "
        "overlapping windows (default: the scene's)",
    )
    parser.add_argument(
        "--master",
        choices=[master.value for master in Master],
        help="master to write beside the clip (default: the scene's)",
    )
    for name, bounds in NUMBERS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_within(*bounds),
            metavar="N" if isinstance(bounds[0], int) else "X",
            help="default: the scene's or the model's",
        )


def _file(text: str) -> Path:
    """An argparse type: an existing file, so that a typing error is reported before the work begins."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}; nothing was started")
    return Path(text)


def _absolute(text: str) -> str:
    """An argparse type: the whole path of an existing file."""
    return str(_file(text).absolute())


def _within(least: float, most: float) -> Callable[[str], float]:
    """An argparse type: a number from `least` to `most`, a whole one if those are."""

    def number(text: str) -> float:
        if not least <= (value := type(least)(text)) <= most:
            raise argparse.ArgumentTypeError(f"from {least} to {most}, not {text}")
        return value

    return number


def folder_for_each(names: Sequence[str], out: Path) -> list[Path]:
    """A folder in `out` for each name; equal names are numbered."""
    folders: list[Path] = []
    for name in names:
        folder, number = out / name, 2
        while folder in folders:
            folder, number = out / f"{name}_{number}", number + 1
        folders.append(folder)
    return folders


class Batch:
    """The files of one call. `generate_file`: the command for one file."""

    def __init__(self, wanted: argparse.Namespace, generate_file: Sequence[str], show: Show = str) -> None:
        self._wanted = wanted
        self._show = show
        self._generate_file = list(generate_file)
        self._processes: list[ReportingProcess] = []
        self._stopped = threading.Event()
        self._printing = threading.Lock()

    def run(self) -> list[Outcome]:
        """The outcomes, in the order of the files. Ctrl+C ends the running processes, and is raised."""
        folders = folder_for_each([blend.stem for blend in self._wanted.blends], self._wanted.out.absolute())
        pool = ThreadPoolExecutor(max_workers=self._wanted.jobs)
        try:
            futures = [pool.submit(self._process, *pair) for pair in zip(self._wanted.blends, folders, strict=True)]
            return [future.result() for future in futures]
        finally:
            self._stopped.set()
            for process in list(self._processes):
                process.interrupt()
            for process in list(self._processes):
                process.stop()
            pool.shutdown(cancel_futures=True)

    def _process(self, blend: Path, folder: Path) -> Outcome:
        began = time.monotonic()
        outcome = Outcome(blend)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            done = self._finished_before(blend, folder)
            outcome.skipped = done is not None
            if done is not None:
                self._print(blend, Text("done before"))
            else:
                done = self._generate(blend, folder)
                if not self._wanted.dry_run:
                    self._remember(blend, folder, done)
            outcome.shots, outcome.copy = done["shots"], done["blend"]
        except MotionBoothError as error:
            outcome.error = error.text
        except OSError as error:
            outcome.error = from_os_error(error, folder).text
        if outcome.error and not self._stopped.is_set():
            self._print(blend, outcome.error)
        outcome.seconds = time.monotonic() - began
        return outcome

    def _generate(self, blend: Path, folder: Path) -> dict[str, Any]:
        """Run a Blender process; returns what it reports as done."""
        process = ReportingProcess([*self._generate_file, *self._options(blend, folder)], folder / "blender.log")
        self._processes.append(process)
        if self._stopped.is_set():
            process.interrupt()
        stage = ""

        def on_progress(report: ProgressReport) -> None:
            nonlocal stage
            if report.stage != stage:
                stage = report.stage
                self._print(blend, Text(stage))

        return process.run(on_progress)

    def _options(self, blend: Path, folder: Path) -> list[str]:
        options = [str(blend.absolute()), "--out", str(folder), "--connection", str(self._wanted.connection.absolute())]
        for name in REPLACEMENTS:
            if (value := getattr(self._wanted, name)) is not None:
                options += [f"--{name.replace('_', '-')}", str(value)]
        return options + [
            f"--{name}" for name in ("dry-run", "in-place") if getattr(self._wanted, name.replace("-", "_"))
        ]

    def _print(self, blend: Path, text: Text) -> None:
        with self._printing:
            print(f"{blend.name}: {self._show(text)}", flush=True)

    # Finished files

    def _finished_before(self, blend: Path, folder: Path) -> dict[str, Any] | None:
        """What an earlier call reported for this file content and these options; None if a result is missing."""
        if self._wanted.again or self._wanted.dry_run:
            return None
        try:
            kept = json.loads((folder / "result.json").read_text())
            if kept["source"] != _digest(blend) or kept["options"] != self._replacements():
                return None
            done = kept["done"]
            files = [done["blend"], *(shot["clip"] for shot in done["shots"])]
            files += [shot["master"] for shot in done["shots"] if shot["master"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return done if all(Path(file).exists() for file in files) else None

    def _remember(self, blend: Path, folder: Path, done: dict[str, Any]) -> None:
        """With --in-place, the source is the file with its new strips, so that it is not generated again."""
        kept = {"source": _digest(blend), "options": self._replacements(), "done": done}
        part = folder / ".result.json.part"
        part.write_text(json.dumps(kept, indent=1))
        part.replace(folder / "result.json")

    def _replacements(self) -> dict[str, Any]:
        values = {name: getattr(self._wanted, name) for name in (*REPLACEMENTS, "in_place")}
        return {**values, "guide": self._wanted.guide and _digest(Path(self._wanted.guide))}


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def table(outcomes: Sequence[Outcome], show: Show = str) -> str:
    """One line for each shot, or for a file without one."""
    rows = [("file", "scene", "frames", "state", "time", "result")]
    for outcome in outcomes:
        took = "" if outcome.skipped else f"{outcome.seconds:.0f} s"
        if outcome.error:
            rows.append((outcome.blend.name, "", "", "failed", took, show(outcome.error)))
        for shot in outcome.shots:
            state = "done before" if outcome.skipped else "done" if shot["clip"] else "checked"
            rows.append((outcome.blend.name, shot["scene"], shot["frames"], state, took, shot["clip"] or shot["shot"]))
            rows += [("", "", "", "", "", f"! {show(convert(warning, Text))}") for warning in shot["warnings"]]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]) for row in rows
    ]
    shots, failed = sum(len(outcome.shots) for outcome in outcomes), sum(bool(outcome.error) for outcome in outcomes)
    return "\n".join([*lines, f"shots: {shots}; files: {len(outcomes)}, of which failed: {failed}"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], [sys.executable, "-m", f"{__package__}.generate_file"]))
