"""`blender --command motionbooth ...`: what Blender does for MotionBooth without a window."""

from __future__ import annotations

import bpy

USAGE = """usage: blender --command motionbooth batch FILE.blend ... [options]

Films every shot of every file. Options: blender --command motionbooth batch --help"""


def register() -> None:
    global _command
    _command = bpy.utils.register_cli_command("motionbooth", execute)


def unregister() -> None:
    bpy.utils.unregister_cli_command(_command)


def execute(arguments: list[str]) -> int:
    """The command's exit status."""
    from ..jobs.controller import job_controller
    from . import (
        generate_file,  # sockets are loaded with a command, not with Blender
        runner,
    )

    if arguments[:1] == ["film"]:  # one file, for `batch`
        return generate_file.main(arguments[1:])
    if arguments[:1] != ["batch"]:
        print(USAGE)
        return 0 if arguments[:1] in ([], ["--help"], ["-h"]) else 2
    as_here = [] if bpy.app.python_args else ["--python-use-system-env"]
    one_file = [bpy.app.binary_path, *as_here, "--command", "motionbooth", "film"]
    try:
        return runner.main(arguments[1:], one_file, job_controller().backend.connection_file)
    except SystemExit as end:  # argparse, after it has said what is wrong or how it is used
        return int(end.code or 0)


_command: object = None
