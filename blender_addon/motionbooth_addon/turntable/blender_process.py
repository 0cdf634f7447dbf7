"""What the Blender that background_render.py starts runs; not a part of the extension in use."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import bpy

PACKAGE = Path(__file__).parents[1]
NAME = "motionbooth_turntable"  # the extension's package, under a name that nobody uses


def main(blend: str, name: str, frame: int, size: int, folder: str) -> None:
    spec = importlib.util.spec_from_file_location(
        NAME, PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    assert spec is not None
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    turntable = importlib.import_module(f"{NAME}.turntable.turntable")
    errors = importlib.import_module(f"{NAME}._protocol.errors")
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
            lambda done, of: tell({"picture": [done, of]}),
        )
        tell({"pictures": [[str(shot.image), str(shot.mask) if shot.mask else None] for shot in pictures]})
    except errors.InvalidInput as error:
        tell({"error": str(error)})


def tell(message: dict[str, Any]) -> None:
    print(json.dumps({"motionbooth": message}), flush=True)


if __name__ == "__main__":
    main(*json.loads(sys.argv[-1]))
