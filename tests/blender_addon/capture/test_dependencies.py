"""Which objects need playback: anything that is not known to be safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon._protocol.text import Text  # noqa: E402
from motionbooth_addon.capture.dependencies import playback_reason  # noqa: E402


def driven(thing: Any, expression: str) -> Any:
    made = thing.driver_add("location", 0).driver
    made.expression = expression
    return made


def an_unknown_function(thing: Any) -> None:
    driven(thing, "somebodys(frame)")


def itself(thing: Any) -> None:
    driven(thing, "self.location.y").use_self = True


def python_in_a_function(thing: Any) -> None:
    driven(thing, "(lambda: bpy.context.scene.frame_current)()")


def a_property_of_the_context(thing: Any) -> None:
    variable = driven(thing, "v").variables.new()
    variable.name, variable.type = "v", "CONTEXT_PROP"


def a_tracker(thing: Any) -> None:
    thing.constraints.new("FOLLOW_TRACK")


def paint(thing: Any) -> None:
    thing.modifiers.new("Paint", "DYNAMIC_PAINT")


def a_driver_of_a_parents_parent(thing: Any) -> None:
    parent, beyond = (bpy.data.objects.new(name, None) for name in ("Parent", "Beyond"))
    thing.parent, parent.parent = parent, beyond
    an_unknown_function(beyond)


def a_driver_of_what_a_modifier_names(thing: Any) -> None:
    hook = bpy.data.objects.new("Hook", None)
    thing.modifiers.new("Hook", "HOOK").object = hook
    an_unknown_function(hook)


def a_driver_of_a_node_group(thing: Any) -> None:
    tree = bpy.data.node_groups.new("Nodes", "GeometryNodeTree")
    node = tree.nodes.new("GeometryNodeSetPosition")
    thing.modifiers.new("Nodes", "NODES").node_group = tree
    node.inputs["Offset"].driver_add("default_value", 0).driver.expression = "somebodys(frame)"


def a_driver_of_an_input_of_a_node_group(thing: Any) -> None:
    tree, named = bpy.data.node_groups.new("Nodes", "GeometryNodeTree"), bpy.data.objects.new("Named", None)
    socket = tree.interface.new_socket("Named", in_out="INPUT", socket_type="NodeSocketObject").identifier
    modifier = thing.modifiers.new("Nodes", "NODES")
    modifier.node_group = tree
    if hasattr(modifier, "properties"):
        getattr(modifier.properties.inputs, socket).value = named
    else:
        modifier[socket] = named
    an_unknown_function(named)


@pytest.mark.parametrize(
    "spoil",
    [
        an_unknown_function,
        itself,
        python_in_a_function,
        a_property_of_the_context,
        a_tracker,
        paint,
        a_driver_of_a_parents_parent,
        a_driver_of_what_a_modifier_names,
        a_driver_of_a_node_group,
        a_driver_of_an_input_of_a_node_group,
    ],
)
def test_whatever_is_not_known_to_be_safe_needs_playback(
    spoil: Callable[[Any], None], scene: Any, add_cube: Callable[..., Any]
) -> None:
    cube = add_cube(scene)
    assert playback_reason([cube]) is None
    spoil(cube)
    assert playback_reason([cube]) is not None


@pytest.mark.parametrize("expression", ["frame / 24", "sin(frame) if frame > 3 else max(0, 1)", "v ** 2", "syntax("])
def test_a_driver_of_numbers_needs_no_playback(expression: str, scene: Any, add_cube: Callable[..., Any]) -> None:
    cube, other = add_cube(scene), add_cube(scene, name="Other")
    variable = driven(cube, expression).variables.new()
    variable.name, variable.targets[0].id, variable.targets[0].data_path = "v", other, "location.x"
    assert playback_reason([cube]) is None


def test_hair_without_dynamics_and_an_object_near_a_simulation_need_no_playback(
    scene: Any, add_cube: Callable[..., Any]
) -> None:
    cube, falling = add_cube(scene), add_cube(scene, name="Falling")
    bpy.context.view_layer.objects.active = falling
    bpy.ops.rigidbody.object_add()
    settings = cube.modifiers.new("Hair", "PARTICLE_SYSTEM").particle_system.settings
    settings.type = "HAIR"
    assert playback_reason([cube]) is None
    assert playback_reason([falling]) == Text("rigid body")
    assert playback_reason([cube, falling]) == Text("rigid body")
