"""The gizmo's two handlers; dragging it with the mouse is tested in a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from mathutils import Matrix  # noqa: E402
from motionbooth_addon import compat  # noqa: E402
from motionbooth_addon.capture import shots  # noqa: E402
from motionbooth_addon.drawing import gizmo  # noqa: E402
from motionbooth_addon.operators.subjects import make_box  # noqa: E402


@pytest.fixture
def box(scene: Any, add_subject: Callable[..., Any]) -> Any:
    """A subject's rectangle, in a scene whose camera is turned and moved."""
    scene.camera.location, scene.camera.rotation_euler = (3, -2, 1), (1.2, 0.1, 0.4)
    box = make_box(scene)
    add_subject(scene, box)
    bpy.context.view_layer.update()
    return box


def drag(scene: Any, by: Matrix) -> None:
    """A drag as the gizmo reports it: a changed matrix, then the release."""
    columns = gizmo._read_matrix()
    cage = Matrix([columns[n : n + 4] for n in (0, 4, 8, 12)]).transposed()
    gizmo._write_matrix(gizmo._flat(by @ cage))
    assert gizmo._drag is not None
    gizmo._drag.held = False
    gizmo._poll_release()
    bpy.app.timers.unregister(gizmo._poll_release)


def seen(scene: Any) -> list[float]:
    box = shots.read_motion(scene, 2).projections[0][0].box
    assert box is not None
    return list(box.as_tuple())


def test_writing_the_matrix_back_changes_nothing(scene: Any, box: Any) -> None:
    before = gizmo._transform(box)
    drag(scene, Matrix.Identity(4))
    assert gizmo._transform(box) == pytest.approx(before, abs=1e-6)


def test_a_drag_moves_the_box_in_its_plane(scene: Any, box: Any) -> None:
    before, depth = seen(scene), box.location.z
    drag(scene, Matrix.Translation((0.5, 0.2, 0)))
    after = seen(scene)
    width = 4.0 * 36 / 35
    assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx(
        [0.5 / width, -0.2 / (width / 1.5)] * 2, abs=1e-5
    )
    assert box.location.z == depth


def test_the_corners_scale_it(scene: Any, box: Any) -> None:
    before = seen(scene)
    drag(scene, Matrix.Diagonal((2, 0.5, 1, 1)))
    after = seen(scene)
    assert after[2] - after[0] == pytest.approx(2 * (before[2] - before[0]), abs=1e-5)
    assert after[3] - after[1] == pytest.approx((before[3] - before[1]) / 2, abs=1e-5)


def test_a_drag_inserts_keyframes_only_with_auto_keying(scene: Any, box: Any) -> None:
    drag(scene, Matrix.Translation((0.1, 0, 0)))
    assert compat.keyed_frames(box) == set()
    scene.tool_settings.use_keyframe_insert_auto = True
    scene.frame_set(7)
    drag(scene, Matrix.Translation((0.1, 0, 0)))
    assert compat.keyed_frames(box) == {7}
    scene.tool_settings.use_keyframe_insert_auto = False


def test_a_drag_in_another_window_than_the_timers_keys_the_box_of_its_own_scene(
    scene: Any, box: Any, add_subject: Callable[..., Any]
) -> None:
    gizmo._write_matrix(gizmo._read_matrix())
    assert gizmo._drag is not None
    gizmo._drag.held = False
    box.location.x += 0.1
    scene.frame_set(5)
    other = bpy.data.scenes.new("Other")
    other.camera = scene.camera
    other.collection.objects.link(scene.camera)
    add_subject(other, make_box(other))
    scene.tool_settings.use_keyframe_insert_auto = True
    bpy.context.window.scene = other
    gizmo._poll_release()
    bpy.app.timers.unregister(gizmo._poll_release)
    assert compat.keyed_frames(box) == {5}
    assert compat.keyed_frames(other.motionbooth.subjects[0].object) == set()


def test_a_drag_ends_with_the_release_of_its_own_cage() -> None:
    """Another view in the camera's perspective has a cage, too, which is redrawn with each movement."""
    drag = gizmo._Drag("Scene", ())
    drag.note(cage=2, is_modal=False)
    drag.note(cage=1, is_modal=True)
    assert drag.held
    drag.note(cage=2, is_modal=False)
    assert drag.held
    drag.note(cage=1, is_modal=False)
    assert not drag.held


def test_a_drag_that_was_too_short_to_be_drawn_ends() -> None:
    drag = gizmo._Drag("Scene", ())
    drag.note(cage=1, is_modal=False)
    assert not drag.held


def test_only_a_rectangle_on_the_camera_has_a_cage(scene: Any, box: Any, add_cube: Callable[..., Any]) -> None:
    assert gizmo.active_rectangle(scene) == box
    scene.motionbooth.subjects[0].object = add_cube(scene)
    assert gizmo.active_rectangle(scene) is None
    scene.motionbooth.active_subject = 5
    assert gizmo.active_rectangle(scene) is None
