"""Whether a thing can be evaluated in a temporary scene of its own, or only by playing the scene that it is in.

A temporary scene has the same time, and the same objects as far as they depend on one another. It does not have what is
simulated from frame to frame, nor what a driver reads from the scene itself. Everything that a thing depends on is
walked: parents, constraints, modifiers, drivers, node groups, instanced collections. What is not known to be harmless
counts as if it were not.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import bpy

# Modifiers whose result at a frame depends on that frame and on the objects they name, and on nothing before it.
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
# Constraints that depend on the frame and on the objects they name; the tracking ones ask the scene for its clip.
TIMELESS_CONSTRAINTS = {
    "COPY_LOCATION", "COPY_ROTATION", "COPY_SCALE", "COPY_TRANSFORMS", "LIMIT_DISTANCE", "LIMIT_LOCATION",
    "LIMIT_ROTATION", "LIMIT_SCALE", "MAINTAIN_VOLUME", "TRANSFORM", "TRANSFORM_CACHE", "CLAMP_TO", "DAMPED_TRACK",
    "IK", "LOCKED_TRACK", "SPLINE_IK", "STRETCH_TO", "TRACK_TO", "ACTION", "ARMATURE", "CHILD_OF", "FLOOR",
    "FOLLOW_PATH", "GEOMETRY_ATTRIBUTE", "PIVOT", "SHRINKWRAP",
}  # fmt: skip
STATEFUL_NODES = {"GeometryNodeSimulationInput", "GeometryNodeSimulationOutput", "GeometryNodeBake"}
# What a driver's expression may name: Blender's own functions of numbers, and the frame.
PURE_NAMES = {
    "frame", "pi", "e", "tau", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "copysign", "cos",
    "cosh", "degrees", "dist", "exp", "expm1", "fabs", "floor", "fmod", "hypot", "isnan", "log", "log1p", "log2",
    "log10", "modf", "pow", "radians", "sin", "sinh", "sqrt", "tan", "tanh", "trunc", "abs", "bool", "float", "int",
    "len", "max", "min", "round", "sum", "lerp", "clamp", "smoothstep", "inf", "nan", "isfinite", "isinf", "fsum",
    "gcd", "gamma", "erf",
}  # fmt: skip
UNINTERESTING = {"action", "dof", "materials", "active_material", "original", "library", "override_library"}


def why_played(things: Iterable[bpy.types.Object]) -> str:
    """Why these have to be read by playing their scene, in a few words; "" where they need not be."""
    walk = _Walk()
    for thing in things:
        walk.visit(thing)
    return walk.reason or _script()


def why_drawn_pan_played(scene: bpy.types.Scene) -> str:
    """The same of the keyframed pan, of which a temporary scene has the action and nothing else."""
    animation = scene.animation_data
    driven = animation and any("motionbooth.pan" in curve.data_path for curve in animation.drivers)
    return "driven by the scene" if driven or (animation and len(animation.nla_tracks)) else ""


def _script() -> str:
    """A handler that runs at each frame (we have none) may do anything to any object."""
    on = bpy.app.handlers
    for handler in [*on.frame_change_pre, *on.frame_change_post]:
        return f"script {getattr(handler, '__name__', 'without a name')}"
    return ""


class _Walk:
    """Goes through all that a thing depends on, until it finds a reason."""

    def __init__(self) -> None:
        self.reason = ""
        self._seen: set[Any] = set()

    def visit(self, block: bpy.types.ID | None) -> None:
        pending = [block]
        while pending and not self.reason:
            current = pending.pop()
            if current is None or current in self._seen:
                continue
            self._seen.add(current)
            if isinstance(current, bpy.types.Scene):
                self.reason = "driven by the scene"
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
                    pending += _named_in(current)

    def _object(self, thing: bpy.types.Object, also: Callable[[Any], None]) -> str:
        if thing.rigid_body is not None:
            return "rigid body"
        for modifier in (*thing.modifiers, *getattr(thing, "grease_pencil_modifiers", ())):  # the latter before 4.3
            if modifier.type in SIMULATIONS and not _is_still_hair(modifier):
                return SIMULATIONS[modifier.type]
            if modifier.type.replace("GP_", "GREASE_PENCIL_") not in TIMELESS_MODIFIERS | set(SIMULATIONS):
                return f"modifier {modifier.name}"
            for named in _named_in(modifier):
                also(named)
            for named in _named_in_inputs(modifier):
                also(named)
        bones = list(thing.pose.bones) if thing.pose else []
        for constraint in [c for owner in (thing, *bones) for c in owner.constraints]:
            if constraint.type not in TIMELESS_CONSTRAINTS:
                return f"constraint {constraint.name}"
            for named in _named_in(constraint):
                also(named)
            for target in getattr(constraint, "targets", ()):
                also(target.target)
        for named in (thing.parent, thing.data, thing.instance_collection):
            also(named)
        if thing.instance_type in {"VERTS", "FACES"}:
            for child in thing.children_recursive:
                also(child)
        for layer in getattr(thing.data, "layers", ()) if thing.type in {"GREASEPENCIL", "GPENCIL"} else ():
            also(layer.parent)
        return ""

    def _drivers(self, block: bpy.types.ID, also: Callable[[Any], None]) -> str:
        animation = getattr(block, "animation_data", None)
        for curve in animation.drivers if animation else ():
            driver = curve.driver
            if driver.use_self and driver.type == "SCRIPTED":
                return f"driver {driver.expression}"
            for variable in driver.variables:
                if variable.type == "CONTEXT_PROP":
                    return "driven by the scene"
                for target in variable.targets:
                    also(target.id)
            if driver.type == "SCRIPTED" and not _is_pure(driver):
                return f"driver {driver.expression}"
        return ""


def _is_still_hair(modifier: bpy.types.Modifier) -> bool:
    system = getattr(modifier, "particle_system", None)
    return system is not None and system.settings.type == "HAIR" and not system.use_hair_dynamics


def _is_pure(driver: bpy.types.Driver) -> bool:
    """Whether its expression is made of its variables and of functions of numbers alone."""
    return _names(driver.expression) <= PURE_NAMES | {variable.name for variable in driver.variables}


@lru_cache(maxsize=1024)
def _names(expression: str) -> frozenset[str]:
    """All that an expression names, functions inside it included; nothing where it runs in no scene."""
    try:
        parsed = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError):
        return frozenset()
    nodes = list(ast.walk(parsed))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return frozenset({node.id for node in nodes if isinstance(node, ast.Name)} | attributes)


def _nodes(tree: bpy.types.NodeTree, also: Callable[[Any], None]) -> str:
    for node in tree.nodes:
        if node.bl_idname in STATEFUL_NODES:
            return "simulation nodes"
        also(getattr(node, "node_tree", None))
        for socket in node.inputs:
            value = getattr(socket, "default_value", None)
            if isinstance(value, bpy.types.ID):
                also(value)
    return ""


def _named_in(block: Any) -> Iterator[bpy.types.ID]:
    """The data-blocks that a struct's own properties point to."""
    for described in block.bl_rna.properties:
        if described.type == "POINTER" and described.identifier not in UNINTERESTING:
            value = getattr(block, described.identifier, None)
            if isinstance(value, bpy.types.ID):
                yield value


def _named_in_inputs(modifier: bpy.types.Modifier) -> Iterator[bpy.types.ID]:
    """What is filled into the inputs of a geometry nodes modifier."""
    if modifier.type == "NODES":
        for key in list(modifier.keys()):
            if isinstance(modifier[key], bpy.types.ID):
                yield modifier[key]
