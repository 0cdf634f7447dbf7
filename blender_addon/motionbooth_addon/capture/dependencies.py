"""Finds out whether an object can be evaluated in a temporary scene, or only by playing its own scene.

A temporary scene has the same frame and evaluates everything that its objects depend on. It lacks simulations, which
advance from frame to frame, and whatever a driver reads from the original scene. This module walks all dependencies of
an object: parents, constraints, modifiers, drivers, node groups and instanced collections. Anything that is not known
to be safe needs playback.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import bpy

from .. import compat
from .._protocol.text import Text

# Modifiers whose result depends only on the current frame and on the objects they refer to.
TIMELESS_MODIFIERS = {
    "DATA_TRANSFER", "MESH_CACHE", "MESH_SEQUENCE_CACHE", "NORMAL_EDIT", "WEIGHTED_NORMAL", "UV_PROJECT", "UV_WARP",
    "VERTEX_WEIGHT_EDIT", "VERTEX_WEIGHT_MIX", "VERTEX_WEIGHT_PROXIMITY", "ARRAY", "BEVEL", "BOOLEAN", "BUILD",
    "DECIMATE", "EDGE_SPLIT", "NODES", "MASK", "MIRROR", "MESH_TO_VOLUME", "MULTIRES", "REMESH", "SCREW", "SKIN",
    "SOLIDIFY", "SUBSURF", "TRIANGULATE", "VOLUME_TO_MESH", "WELD", "WIREFRAME", "ARMATURE", "CAST", "CURVE",
    "DISPLACE", "HOOK", "LAPLACIANDEFORM", "LATTICE", "MESH_DEFORM", "SHRINKWRAP", "SIMPLE_DEFORM", "SMOOTH",
    "CORRECTIVE_SMOOTH", "LAPLACIANSMOOTH", "SURFACE_DEFORM", "WARP", "WAVE", "VOLUME_DISPLACE", "OCEAN", "COLLISION",
    "SURFACE",
    "GREASE_PENCIL_COLOR", "GREASE_PENCIL_TINT", "GREASE_PENCIL_OPACITY", "GREASE_PENCIL_TEXTURE",
    "GREASE_PENCIL_ARRAY", "GREASE_PENCIL_LENGTH", "GREASE_PENCIL_MIRROR", "GREASE_PENCIL_MULTIPLY",
    "GREASE_PENCIL_SIMPLIFY", "GREASE_PENCIL_SUBDIV", "GREASE_PENCIL_ENVELOPE", "GREASE_PENCIL_ARMATURE",
    "GREASE_PENCIL_HOOK", "GREASE_PENCIL_NOISE", "GREASE_PENCIL_OFFSET", "GREASE_PENCIL_SMOOTH",
    "GREASE_PENCIL_THICKNESS", "GREASE_PENCIL_LATTICE", "GREASE_PENCIL_SHRINKWRAP",
    "GREASE_PENCIL_VERTEX_WEIGHT_PROXIMITY", "GREASE_PENCIL_VERTEX_WEIGHT_ANGLE",
}  # fmt: skip
SIMULATIONS = {
    "CLOTH": "cloth", "SOFT_BODY": "soft body", "FLUID": "fluid", "DYNAMIC_PAINT": "dynamic paint",
    "PARTICLE_SYSTEM": "particles", "PARTICLE_INSTANCE": "particles", "EXPLODE": "particles",
}  # fmt: skip
# Constraints that depend only on the current frame and on the objects they refer to. The motion tracking ones read the
# scene's clip.
TIMELESS_CONSTRAINTS = {
    "COPY_LOCATION", "COPY_ROTATION", "COPY_SCALE", "COPY_TRANSFORMS", "LIMIT_DISTANCE", "LIMIT_LOCATION",
    "LIMIT_ROTATION", "LIMIT_SCALE", "MAINTAIN_VOLUME", "TRANSFORM", "TRANSFORM_CACHE", "CLAMP_TO", "DAMPED_TRACK",
    "IK", "LOCKED_TRACK", "SPLINE_IK", "STRETCH_TO", "TRACK_TO", "ACTION", "ARMATURE", "CHILD_OF", "FLOOR",
    "FOLLOW_PATH", "GEOMETRY_ATTRIBUTE", "PIVOT", "SHRINKWRAP",
}  # fmt: skip
STATEFUL_NODES = {"GeometryNodeSimulationInput", "GeometryNodeSimulationOutput", "GeometryNodeBake"}
# Names that a driver's expression may use: Blender's functions of numbers, and the frame.
PURE_NAMES = {
    "frame", "pi", "e", "tau", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "copysign", "cos",
    "cosh", "degrees", "dist", "exp", "expm1", "fabs", "floor", "fmod", "hypot", "isnan", "log", "log1p", "log2",
    "log10", "modf", "pow", "radians", "sin", "sinh", "sqrt", "tan", "tanh", "trunc", "abs", "bool", "float", "int",
    "len", "max", "min", "round", "sum", "lerp", "clamp", "smoothstep", "inf", "nan", "isfinite", "isinf", "fsum",
    "gcd", "gamma", "erf",
}  # fmt: skip
IGNORED_PROPERTIES = {"action", "dof", "materials", "active_material", "original", "library", "override_library"}

DRIVEN_BY_SCENE = Text("driven by the scene")


def playback_reason(objects: Iterable[bpy.types.Object]) -> Text | None:
    """Why the scene has to be played for these objects, in a few words; None if a temporary scene is enough."""
    walk = _Walk()
    for root in objects:
        walk.visit(root)
    return walk.reason or _frame_change_script()


def pan_playback_reason(scene: bpy.types.Scene) -> Text | None:
    """Why the scene has to be played for the keyframed pan: a temporary scene has its action, but no drivers or NLA."""
    animation = scene.animation_data
    driven = animation and any("motionbooth.pan" in curve.data_path for curve in animation.drivers)
    return DRIVEN_BY_SCENE if driven or (animation and len(animation.nla_tracks)) else None


def _frame_change_script() -> Text | None:
    """A script that runs at each frame change may change any object. This extension has none."""
    on = bpy.app.handlers
    for handler in [*on.frame_change_pre, *on.frame_change_post]:
        return Text.of("script {name}", name=getattr(handler, "__name__", "?"))
    return None


class _Walk:
    """Walks the dependencies of objects until it finds a reason for playback."""

    def __init__(self) -> None:
        self.reason: Text | None = None
        self._visited: set[Any] = set()

    def visit(self, block: bpy.types.ID | None) -> None:
        pending = [block]
        while pending and not self.reason:
            current = pending.pop()
            if current is None or current in self._visited:
                continue
            self._visited.add(current)
            if isinstance(current, bpy.types.Scene):
                self.reason = DRIVEN_BY_SCENE
                return
            self.reason = self._drivers(current, pending.append)
            match current:
                case bpy.types.Object():
                    self.reason = self.reason or self._object(current, pending.append)
                case bpy.types.Collection():
                    pending += current.all_objects
                case bpy.types.NodeTree():
                    self.reason = self.reason or _nodes(current, pending.append)
                case _:
                    pending += _referenced_by(current)

    def _object(self, walked: bpy.types.Object, visit: Callable[[Any], None]) -> Text | None:
        if walked.rigid_body is not None:
            return Text("rigid body")
        for modifier in (*walked.modifiers, *getattr(walked, "grease_pencil_modifiers", ())):  # the latter before 4.3
            if modifier.type in SIMULATIONS and not _is_static_hair(modifier):
                return Text(SIMULATIONS[modifier.type])
            if modifier.type.replace("GP_", "GREASE_PENCIL_") not in TIMELESS_MODIFIERS | set(SIMULATIONS):
                return Text.of("modifier {name}", name=modifier.name)
            for referenced in (*_referenced_by(modifier), *compat.node_inputs(modifier)):
                visit(referenced)
        bones = list(walked.pose.bones) if walked.pose else []
        for constraint in [c for owner in (walked, *bones) for c in owner.constraints]:
            if constraint.type not in TIMELESS_CONSTRAINTS:
                return Text.of("constraint {name}", name=constraint.name)
            for referenced in _referenced_by(constraint):
                visit(referenced)
            for target in getattr(constraint, "targets", ()):
                visit(target.target)
        for referenced in (walked.parent, walked.data, walked.instance_collection):
            visit(referenced)
        if walked.instance_type in {"VERTS", "FACES"}:
            for child in walked.children_recursive:
                visit(child)
        for layer in getattr(walked.data, "layers", ()) if walked.type in {"GREASEPENCIL", "GPENCIL"} else ():
            visit(layer.parent)
        return None

    def _drivers(self, block: bpy.types.ID, visit: Callable[[Any], None]) -> Text | None:
        animation = getattr(block, "animation_data", None)
        for curve in animation.drivers if animation else ():
            driver = curve.driver
            if driver.use_self and driver.type == "SCRIPTED":
                return Text.of("driver {expression}", expression=driver.expression)
            for variable in driver.variables:
                if variable.type == "CONTEXT_PROP":
                    return DRIVEN_BY_SCENE
                for target in variable.targets:
                    visit(target.id)
            if driver.type == "SCRIPTED" and not _is_pure(driver):
                return Text.of("driver {expression}", expression=driver.expression)
        return None


def _is_static_hair(modifier: bpy.types.Modifier) -> bool:
    system = getattr(modifier, "particle_system", None)
    return system is not None and system.settings.type == "HAIR" and not system.use_hair_dynamics


def _is_pure(driver: bpy.types.Driver) -> bool:
    """Whether its expression uses only its variables and functions of numbers."""
    return _names(driver.expression) <= PURE_NAMES | {variable.name for variable in driver.variables}


@lru_cache(maxsize=1024)
def _names(expression: str) -> frozenset[str]:
    """All names in an expression, functions included; empty if it is not valid Python, so that no scene can run it."""
    try:
        parsed = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError):
        return frozenset()
    nodes = list(ast.walk(parsed))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return frozenset({node.id for node in nodes if isinstance(node, ast.Name)} | attributes)


def _nodes(tree: bpy.types.NodeTree, visit: Callable[[Any], None]) -> Text | None:
    for node in tree.nodes:
        if node.bl_idname in STATEFUL_NODES:
            return Text("simulation nodes")
        visit(getattr(node, "node_tree", None))
        for socket in node.inputs:
            value = getattr(socket, "default_value", None)
            if isinstance(value, bpy.types.ID):
                visit(value)
    return None


def _referenced_by(block: Any) -> Iterator[bpy.types.ID]:
    """The data-blocks that a struct's properties point to."""
    for rna in block.bl_rna.properties:
        if rna.type == "POINTER" and rna.identifier not in IGNORED_PROPERTIES:
            value = getattr(block, rna.identifier, None)
            if isinstance(value, bpy.types.ID):
                yield value
