"""What the overlay says and when it draws nothing; its pictures are tested in a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from animating import new_object  # noqa: E402
from motionbooth_addon.drawing import overlay, shot_overlay  # noqa: E402


@pytest.mark.parametrize(("system", "shown"), [("METRIC", "3 m"), ("NONE", "300")])
def test_the_background_distance_is_in_the_scenes_units(system: str, shown: str, scene: Any) -> None:
    scene.unit_settings.system, scene.unit_settings.scale_length = system, 0.01
    scene.motionbooth.background_distance = 300
    assert shot_overlay._background_label(scene) == f"Background distance: {shown}"


@pytest.mark.parametrize("view", ["CAMERA", "PERSP"])
@pytest.mark.parametrize("light", [True, False])
def test_nothing_is_drawn_while_another_object_is_the_active_camera(
    light: bool, view: str, scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    """As for aiming a lamp, with Ctrl+Numpad 0."""
    add_subject(scene, add_cube(scene))
    scene.camera = new_object(scene, "Aimed", bpy.data.lights.new("Lamp", "SPOT") if light else None)
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    region = next(region for region in area.regions if region.type == "WINDOW")
    area.spaces.active.region_3d.view_perspective = view
    with bpy.context.temp_override(window=window, area=area, region=region):
        overlay._draw_view()
