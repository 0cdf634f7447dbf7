"""A gizmo around the active subject's rectangle in the camera view, to move and scale it by dragging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy
from mathutils import Matrix

from ..capture.geometry import is_rectangle
from ..capture.scene_evaluation import view_layer_of

POLL_SECONDS = 0.1  # how often to check whether a drag has ended


@dataclass
class _Drag:
    """A drag in progress. Gizmos do not report their release, so a timer polls for it."""

    scene: str
    transform_before: tuple[float, ...]  # location and scale
    held: bool = True  # as of the last redraw
    cage: int = 0  # the one that is held: each view in the camera's perspective has its own

    def note(self, cage: int, is_modal: bool) -> None:
        """Of a redraw of this cage."""
        if is_modal:
            self.held, self.cage = True, cage
        elif self.cage in (0, cage):
            self.held = False


_drag: _Drag | None = None


def active_rectangle(scene: bpy.types.Scene) -> bpy.types.Object | None:
    """The proxy object of the active subject, if it is a visible rectangle parented to the camera."""
    shot = scene.motionbooth
    if not 0 <= shot.active_subject < len(shot.subjects):
        return None
    proxy = shot.subjects[shot.active_subject].object
    if proxy is None or scene.camera is None or proxy.parent != scene.camera or not is_rectangle(proxy):
        return None
    return proxy if proxy.visible_get(view_layer=view_layer_of(scene)) else None


class MOTIONBOOTH_GGT_box(bpy.types.GizmoGroup):
    """Shows the cage in the camera view."""

    bl_label = "Subject Box"
    bl_space_type = "VIEW_3D"
    bl_region_type = "WINDOW"
    bl_options = {"3D", "PERSISTENT", "SHOW_MODAL_ALL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return (
            context.mode == "OBJECT"
            and context.region_data.view_perspective == "CAMERA"
            and active_rectangle(context.scene) is not None
        )

    def setup(self, context: bpy.types.Context) -> None:
        cage = self.gizmos.new("GIZMO_GT_cage_2d")
        cage.transform = {"TRANSLATE", "SCALE"}
        cage.draw_style = "BOX"
        cage.use_draw_modal = True
        cage.line_width = 2
        cage.alpha, cage.alpha_highlight = 0.8, 1.0
        cage.target_set_handler("matrix", get=_read_matrix, set=_write_matrix)
        self.cage = cage
        self.draw_prepare(context)

    def draw_prepare(self, context: bpy.types.Context) -> None:
        """Fit the cage to the rectangle."""
        if _drag is not None:
            _drag.note(id(self), self.cage.is_modal)
        rectangle = active_rectangle(context.scene)
        if rectangle is None:
            return
        low, high = _extent(rectangle)
        self.cage.dimensions = high[0] - low[0], high[1] - low[1]
        # The mouse is tracked in the plane of this matrix, so it must be at the depth of the rectangle.
        self.cage.matrix_basis = rectangle.parent.matrix_world @ rectangle.matrix_parent_inverse @ _depth(rectangle)
        self.cage.color = self.cage.color_highlight = context.scene.motionbooth.subjects[
            context.scene.motionbooth.active_subject
        ].color


def _extent(rectangle: bpy.types.Object) -> tuple[Sequence[float], Sequence[float]]:
    """The lowest and highest corner of the rectangle in object space."""
    corners = [corner[:] for corner in rectangle.bound_box]
    return [min(axis) for axis in zip(*corners, strict=True)], [max(axis) for axis in zip(*corners, strict=True)]


def _center(rectangle: bpy.types.Object) -> Matrix:
    """From the cage, which is centered on its origin, to the rectangle's object space."""
    low, high = _extent(rectangle)
    return Matrix.Translation([(a + b) / 2 for a, b in zip(low, high, strict=True)])


def _depth(rectangle: bpy.types.Object) -> Matrix:
    return Matrix.Translation((0, 0, rectangle.location.z))


def _read_matrix() -> list[float]:
    """The cage's matrix in its plane, column by column, as gizmos expect it."""
    rectangle = active_rectangle(bpy.context.scene)
    if rectangle is None:
        return _flat(Matrix.Identity(4))
    return _flat(_depth(rectangle).inverted() @ rectangle.matrix_basis @ _center(rectangle))


def _write_matrix(columns: Sequence[float]) -> None:
    """Move and scale the rectangle as the cage is dragged. Its depth does not change."""
    global _drag
    rectangle = active_rectangle(bpy.context.scene)
    if rectangle is None:
        return
    if _drag is None:
        _drag = _Drag(bpy.context.scene.name, _transform(rectangle))
        bpy.app.timers.register(_poll_release, first_interval=POLL_SECONDS, persistent=True)
    cage = Matrix([columns[start : start + 4] for start in (0, 4, 8, 12)]).transposed()
    location, _, scale = (cage @ _center(rectangle).inverted()).decompose()
    rectangle.location.xy = location.xy
    rectangle.scale.xy = scale.xy


def _poll_release() -> float | None:
    """After the release: insert keyframes if Auto Keying is on, and push an undo step."""
    global _drag
    if _drag is None or _drag.held:
        return None if _drag is None else POLL_SECONDS
    drag, _drag = _drag, None
    scene = bpy.data.scenes.get(drag.scene)  # perhaps of another window than the timer's
    rectangle = active_rectangle(scene) if scene is not None else None
    if rectangle is not None and _transform(rectangle) != drag.transform_before:
        if scene.tool_settings.use_keyframe_insert_auto:
            rectangle.keyframe_insert("location", frame=scene.frame_current)
            rectangle.keyframe_insert("scale", frame=scene.frame_current)
        bpy.ops.ed.undo_push(message="Move Subject Box")
    return None


def _transform(rectangle: bpy.types.Object) -> tuple[float, ...]:
    return (*rectangle.location, *rectangle.scale)


def _flat(matrix: Matrix) -> list[float]:
    return [value for column in matrix.transposed() for value in column]


CLASSES = (MOTIONBOOTH_GGT_box,)
