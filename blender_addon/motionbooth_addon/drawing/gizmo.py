"""A cage around the active subject's rectangle in the camera's view: dragged to move, by corners and sides to scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy
from mathutils import Matrix

from .overlay import is_rectangle

END_SECONDS = 0.1  # how often it is looked whether a drag is over


@dataclass
class _Drag:
    """A drag under way. Gizmos do not tell when they are let go, so it is watched."""

    held: bool  # as of the last redraw
    before: tuple[float, ...]  # location and scale


_drag: _Drag | None = None


def active_rectangle(context: bpy.types.Context) -> bpy.types.Object | None:
    """The rectangle of the scene's active subject, where it is one that hangs on the camera."""
    scene = context.scene
    shot = scene.motionbooth
    if not 0 <= shot.active_subject < len(shot.subjects):
        return None
    thing = shot.subjects[shot.active_subject].object
    if thing is None or scene.camera is None or thing.parent != scene.camera or not is_rectangle(thing):
        return None
    return thing if thing.visible_get() else None


class MOTIONBOOTH_GGT_box(bpy.types.GizmoGroup):
    """Shows the cage while the view is the camera's."""

    bl_label = "Subject Box"
    bl_space_type = "VIEW_3D"
    bl_region_type = "WINDOW"
    bl_options = {"3D", "PERSISTENT", "SHOW_MODAL_ALL"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return (
            context.mode == "OBJECT"
            and context.region_data.view_perspective == "CAMERA"
            and active_rectangle(context) is not None
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
        """Lay the cage on the rectangle as it is now."""
        if _drag is not None:
            _drag.held = self.cage.is_modal
        thing = active_rectangle(context)
        if thing is None:
            return
        low, high = _extent(thing)
        self.cage.dimensions = high[0] - low[0], high[1] - low[1]
        # The mouse is followed in the plane of this matrix, so it has to lie as deep as the rectangle does.
        self.cage.matrix_basis = thing.parent.matrix_world @ thing.matrix_parent_inverse @ _depth(thing)
        self.cage.color = self.cage.color_highlight = context.scene.motionbooth.subjects[
            context.scene.motionbooth.active_subject
        ].color


def _extent(thing: bpy.types.Object) -> tuple[Sequence[float], Sequence[float]]:
    """Lowest and highest corner of the rectangle in its own space."""
    corners = [corner[:] for corner in thing.bound_box]
    return [min(axis) for axis in zip(*corners, strict=True)], [max(axis) for axis in zip(*corners, strict=True)]


def _center(thing: bpy.types.Object) -> Matrix:
    """From the cage, which is centred on its own origin, to the rectangle's own space."""
    low, high = _extent(thing)
    return Matrix.Translation([(a + b) / 2 for a, b in zip(low, high, strict=True)])


def _depth(thing: bpy.types.Object) -> Matrix:
    return Matrix.Translation((0, 0, thing.location.z))


def _read_matrix() -> list[float]:
    """The cage in its plane: columns one after the other, as gizmos have them."""
    thing = active_rectangle(bpy.context)
    if thing is None:
        return _flat(Matrix.Identity(4))
    return _flat(_depth(thing).inverted() @ thing.matrix_basis @ _center(thing))


def _write_matrix(columns: Sequence[float]) -> None:
    """The rectangle to where the cage is dragged. Its depth stays as it is."""
    global _drag
    thing = active_rectangle(bpy.context)
    if thing is None:
        return
    if _drag is None:
        _drag = _Drag(True, _place(thing))
        bpy.app.timers.register(_finish, first_interval=END_SECONDS, persistent=True)
    cage = Matrix([columns[start : start + 4] for start in (0, 4, 8, 12)]).transposed()
    location, _, scale = (cage @ _center(thing).inverted()).decompose()
    thing.location.xy = location.xy
    thing.scale.xy = scale.xy


def _finish() -> float | None:
    """Once it was let go: keyframes where auto-key is on, and a step to undo."""
    global _drag
    if _drag is None or _drag.held:
        return None if _drag is None else END_SECONDS
    drag, _drag = _drag, None
    thing = active_rectangle(bpy.context)
    if thing is not None and _place(thing) != drag.before:
        if bpy.context.scene.tool_settings.use_keyframe_insert_auto:
            thing.keyframe_insert("location")
            thing.keyframe_insert("scale")
        bpy.ops.ed.undo_push(message="Move Subject Box")
    return None


def _place(thing: bpy.types.Object) -> tuple[float, ...]:
    return (*thing.location, *thing.scale)


def _flat(matrix: Matrix) -> list[float]:
    return [value for column in matrix.transposed() for value in column]


CLASSES = (MOTIONBOOTH_GGT_box,)
