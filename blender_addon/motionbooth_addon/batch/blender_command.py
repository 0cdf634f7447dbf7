"""`blender --command motionbooth ...`: MotionBooth without a window."""

from __future__ import annotations

import bpy

USAGE = """usage: blender --command motionbooth batch FILE.blend ... [options]

Generate every shot of every file. Options: blender --command motionbooth batch --help"""


def register() -> None:
    global _command
    _command = bpy.utils.register_cli_command("motionbooth", execute)


def unregister() -> None:
    bpy.utils.unregister_cli_command(_command)


def execute(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    from ..i18n.translation import translate
    from ..jobs.controller import job_controller
    from . import generate_file, runner  # they load pyzmq

    if arguments[:1] == ["generate"]:  # one file, for `batch`
        return generate_file.main(arguments[1:])
    if arguments[:1] != ["batch"]:
        print(USAGE)
        return 0 if arguments[:1] in ([], ["--help"], ["-h"]) else 2
    environment = [] if bpy.app.python_args else ["--python-use-system-env"]
    one_file = [bpy.app.binary_path, *environment, "--command", "motionbooth", "generate"]
    try:
        return runner.main(arguments[1:], one_file, job_controller().backend.connection_file, translate)
    except SystemExit as end:  # of argparse, which has printed an error or its help
        return int(end.code or 0)


_command: object = None
