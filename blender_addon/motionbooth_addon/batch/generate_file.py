"""The main job without a window: a saved .blend in; clips, and a copy of it with the clips on its timeline, out.

    python -m motionbooth_addon.batch.generate_file SCENE.blend --connection FILE --out DIR
        [--seed N] [--training-steps N] [--sampling-steps N] [--dry-run] [--in-place]

Every scene of the .blend that has MotionBooth subjects is one shot. In DIR appear

    shot.blend                      the copy, with a strip on each shot's range
    clip.mp4, shot.json             the clip, and what was sent for it (`filming.Sent`)
    training_pictures/SUBJECT/      what the subject was learned from

and, where there are several shots, the last three in a folder for each, named like its scene. With --in-place the
strips are put into SCENE.blend itself, and there is no copy.

On standard output there are JSON objects, one a line, and nothing else (Blender's own chatter goes to standard error):

    {"stage": "learning", "step": 12, "steps": 120, "seconds_left": 80.5, "note": "Imp"}
        as it goes; steps is 0 where a stage is not counted, seconds_left (of the whole job that
        the backend runs) null where nobody knows, note may be empty
    {"done": {"blend": PATH, "shots": [{"scene": NAME, "frames": "1-48", "clip": PATH, "shot": PATH,
              "pictures": {SUBJECT: [PATH, ...]}, "job": ID, "warnings": [SENTENCE, ...]}, ...]}}
        last, with exit status 0
    {"error": {"code": "invalid_input", "message": SENTENCE}}
        last, with exit status 2 where the input must be changed, else 1

Ended while jobs were under way, and called again with the same DIR, it goes on with them: DIR/jobs.json names them as
long as they are.

`--dry-run` reads and checks everything and writes shot.json, and sends nothing; blend, clip and job are null then.
Ctrl+C cancels the job under way (exit status 130).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

import bpy

from .. import register
from .._protocol.errors import InvalidInput, MotionBoothError, OutOfSpace, is_disk_full
from .generate_shots import Options, film
from .runner import add_numbers


def main(arguments: list[str]) -> int:
    wanted = _parser().parse_args(arguments)
    lines = _take_standard_output()
    options = Options(wanted.seed, wanted.training_steps, wanted.sampling_steps, wanted.dry_run, wanted.in_place)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Blender's own handler would end it at once

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=lines, flush=True)

    told: MotionBoothError
    bpy.context.preferences.filepaths.save_version = 0  # no shot.blend1 beside shot.blend
    try:
        tell({"done": film(wanted.scene, wanted.connection, wanted.out, options, tell)})
        return 0
    except KeyboardInterrupt:
        return 130
    except MotionBoothError as error:
        told = error
    except OSError as error:
        told = _about_files(error, wanted.out)
    tell({"error": {"code": told.code, "message": str(told)}})
    return 2 if isinstance(told, InvalidInput) else 1


def _about_files(error: OSError, out: Path) -> MotionBoothError:
    """A file that could not be written or read, for a person."""
    where = error.filename or out
    if is_disk_full(error):
        return OutOfSpace(f"The disk of {where} is full; free some space there and film again.")
    return InvalidInput(f"{where} cannot be used ({error.strerror}); check its permissions or choose another --out.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="motionbooth_addon.batch.generate_file", description="Film the shots of a saved .blend."
    )
    parser.add_argument("scene", type=Path, metavar="SCENE.blend")
    parser.add_argument("--connection", type=Path, help="connection file of the backend; not needed for --dry-run")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is made")
    add_numbers(parser)
    parser.add_argument("--dry-run", action="store_true", help="read, check and write shot.json; send nothing")
    parser.add_argument("--in-place", action="store_true", help="put the strips into SCENE.blend itself")
    return parser


def _take_standard_output() -> TextIO:
    """Standard output for our lines alone: what Blender prints to it from C goes to standard error from now on."""
    sys.stdout.flush()
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lines


if __name__ == "__main__":
    register()
    sys.exit(main(sys.argv[1:]))
