"""The script that background_render.py runs in another Blender; not a part of the running extension."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import bpy

PACKAGE = Path(__file__).parents[1]
NAME = "motionbooth_turntable"  # the extension's package, under a name that is free


def main(libraries: str, module: str, stage: str, task: list[Any]) -> None:
    """Call `render_library` of a module of the extension with the task; its result is the process's.

    libraries: the folder of the extension's libraries.
    """
    sys.path.append(libraries)
    spec = importlib.util.spec_from_file_location(
        NAME, PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    assert spec is not None
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    renders = importlib.import_module(f"{NAME}.{module}")
    errors = importlib.import_module(f"{NAME}._protocol.errors")
    reports = importlib.import_module(f"{NAME}._protocol.reports")
    writer = importlib.import_module(f"{NAME}._protocol.reporting_process").ReportWriter(sys.stdout)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    try:
        writer.done(
            renders.render_library(
                *task, lambda done, total: writer.progress(reports.ProgressReport(stage, done, total))
            )
        )
    except errors.InvalidInput as error:
        writer.failed(error)


if __name__ == "__main__":
    main(*json.loads(sys.argv[-1]))
