"""The script that background_render.py runs in another Blender; not a part of the running extension."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import bpy

PACKAGE = Path(__file__).parents[1]
NAME = "motionbooth_turntable"  # the extension's package, under a name that is free


def main(blend: str, name: str, frame: int, size: int, folder: str) -> None:
    spec = importlib.util.spec_from_file_location(
        NAME, PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    assert spec is not None
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    turntable = importlib.import_module(f"{NAME}.turntable.turntable")
    errors = importlib.import_module(f"{NAME}._protocol.errors")
    reports = importlib.import_module(f"{NAME}._protocol.reports")
    writer = importlib.import_module(f"{NAME}._protocol.reporting_process").ReportWriter(sys.stdout)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.frame_start = frame
    with bpy.data.libraries.load(blend) as (_, wanted):
        wanted.objects = [name]
    try:
        pictures = turntable.render_turntable(
            scene,
            wanted.objects[0],
            Path(folder),
            turntable.TurntableSettings(size),
            lambda done, total: writer.progress(reports.ProgressReport("rendering pictures", done, total)),
        )
        writer.done([[str(picture.image), str(picture.mask) if picture.mask else None] for picture in pictures])
    except errors.InvalidInput as error:
        writer.failed(error)


if __name__ == "__main__":
    main(*json.loads(sys.argv[-1]))
