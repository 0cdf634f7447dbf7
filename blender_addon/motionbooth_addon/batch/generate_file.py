"""Generates the shots of one saved .blend without a window.

    python -m motionbooth_addon.batch.generate_file SCENE.blend --connection FILE --out DIR
        [--model NAME] [--seed N] [--training-steps N] [--sampling-steps N]
        [--guide CLIP] [--subject-strength X] [--background-strength X] [--long-shot spread|windows]
        [--master NAME] [--dry-run] [--in-place]

Every scene with MotionBooth subjects is one shot. DIR receives

    shot.blend                      a copy of the .blend, with each clip as a strip on its shot's range
    clip.mp4, shot.json             the clip, and the specs that were submitted for it (`generate_shots.ShotFile`)
    clip.mov, clip.mkv or clip/     the master, if one is asked for: a movie, or the pictures of a sequence
    guide.png, masks.png            the guide, if one is rendered (animated PNG)
    training_pictures/SUBJECT/      the pictures that the subject was trained on

If there are several shots, each has its clip.mp4, shot.json and training_pictures in a folder named like its scene.
With --in-place, the strips are put into SCENE.blend itself, and there is no copy.

Standard output has only JSON lines (see reporting_process.py); Blender's own output goes to standard error:

    progress, whose note is a warning or the name of the subject or shot
    {"done": {"blend": PATH, "shots": [{"scene": NAME, "frames": "1-48", "clip": PATH, "master": PATH, "shot": PATH,
              "pictures": {SUBJECT: [PATH, ...]}, "job": ID, "warnings": [TEXT, ...]}, ...]}}
        last, with exit status 0
    an error: last, with exit status 2 if the input must be changed, otherwise 1

With --dry-run, everything is read and validated, shot.json is written, and nothing is sent; blend, clip, master and
job are null then. Ctrl+C cancels the unfinished jobs (exit status 130). If the same shot is generated again, the
backend returns its cached result, or that of a job that is still running.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TextIO

import bpy

from .. import register, unregister
from .._protocol.errors import InvalidInput, MotionBoothError, from_os_error
from .._protocol.reporting_process import ReportWriter
from .generate_shots import Options, generate
from .runner import REPLACEMENTS, add_replacements


def main(arguments: list[str]) -> int:
    wanted = _parser().parse_args(arguments)
    writer = ReportWriter(_take_standard_output())
    replacements = {name: getattr(wanted, name) for name in REPLACEMENTS}
    options = Options(dry_run=wanted.dry_run, in_place=wanted.in_place, **replacements)
    signal.signal(signal.SIGINT, _interrupt_once)  # Blender's own handler would end it at once
    bpy.context.preferences.filepaths.save_version = 0  # no shot.blend1 beside shot.blend
    failure: MotionBoothError
    try:
        writer.done(generate(wanted.scene, wanted.connection, wanted.out, options, writer.progress))
        return 0
    except KeyboardInterrupt:
        return 130
    except MotionBoothError as error:
        failure = error
    except OSError as error:
        failure = from_os_error(error, wanted.out)
    writer.failed(failure)
    return 2 if isinstance(failure, InvalidInput) else 1


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Only the first signal interrupts: a second one would end the cancellation of the jobs halfway."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="motionbooth_addon.batch.generate_file", description="Generate the shots of a saved .blend."
    )
    parser.add_argument("scene", type=Path, metavar="SCENE.blend")
    parser.add_argument("--connection", type=Path, help="connection file of the backend; not needed for --dry-run")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    add_replacements(parser)
    parser.add_argument("--dry-run", action="store_true", help="read, validate and write shot.json; send nothing")
    parser.add_argument("--in-place", action="store_true", help="put the strips into SCENE.blend itself")
    return parser


def _take_standard_output() -> TextIO:
    """Standard output for the reports alone: Blender prints to it from C, which goes to standard error from now on."""
    sys.stdout.flush()
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lines


if __name__ == "__main__":
    register()
    try:
        status = main(sys.argv[1:])
    finally:
        unregister()  # a timer that is left, such as of a guide, can keep bpy from ending
    sys.exit(status)
