"""Scenes that must be played from their first frame: simulations, and drivers that depend on the scene. Needs bpy."""

from __future__ import annotations

from typing import Any

import bpy

from motionbooth_lab.bench.animated_scenes import add_nodes, shape_keys
from motionbooth_lab.bench.scene_building import LAST, add, cube, driver, grid, key, kind, walking


def _body(thing: Any, kind: str = "ACTIVE") -> Any:
    bpy.context.view_layer.objects.active = thing
    bpy.ops.object.select_all(action="DESELECT")
    thing.select_set(True)
    bpy.ops.rigidbody.object_add()
    thing.rigid_body.type = kind
    return thing


@kind
def rigid_body(scene: Any) -> Any:
    """A body that falls onto a slope and rolls."""
    _body(cube(scene, (0.4, 0, -2), 4, "Floor"), "PASSIVE").rotation_euler.y = 0.4
    return _body(cube(scene, (0, 0, 1.6), 0.8))


@kind
def child_of_a_rigid_body(scene: Any) -> Any:
    body = rigid_body(scene)
    thing = cube(scene, (0.5, 0, 0), 0.5, "Child")
    thing.parent = body
    return thing


@kind
def follows_a_rigid_body(scene: Any) -> Any:
    body = rigid_body(scene)
    thing = cube(scene, (1, 0, 0), 0.5, "Follower")
    thing.constraints.new("COPY_LOCATION").target = body
    return thing


@kind
def driven_by_a_rigid_body(scene: Any) -> Any:
    body, thing = rigid_body(scene), cube(scene, (1, 0, 0), 0.5, "Driven")
    made = driver(thing, "scale", 0, "1 + z", z=(body, ""))
    variable = made.variables[0]
    variable.type = "TRANSFORMS"
    variable.targets[0].id, variable.targets[0].transform_type = body, "LOC_Z"
    return thing


@kind
def instances_of_a_rigid_body(scene: Any) -> Any:
    body = rigid_body(scene)
    thing = key(add(scene, "Nodes", bpy.data.meshes.new("Nodes")), "location", (-1, 0, 0), (1, 0, 0))
    add_nodes(thing)
    tree = thing.modifiers[0].node_group
    info = tree.nodes.new("GeometryNodeObjectInfo")
    info.inputs["Object"].default_value, info.transform_space = body, "RELATIVE"
    tree.links.new(info.outputs["Geometry"], tree.nodes["Group Output"].inputs[0])
    return thing


@kind
def camera_on_a_rigid_body(scene: Any) -> Any:
    thing = walking(scene)
    scene.camera.parent = _body(cube(scene, (0, -14, 0), 0.5, "Dolly"))
    return thing


@kind
def cloth(scene: Any) -> Any:
    thing = grid()
    thing.modifiers.new("Cloth", "CLOTH")
    return thing


@kind
def pinned_cloth_that_is_subdivided(scene: Any) -> Any:
    thing = key(grid(), "location", (-1, 0, 1), (1, 0, 1))
    group = thing.vertex_groups.new(name="Pin")
    group.add([0, 8], 1.0, "REPLACE")
    thing.modifiers.new("Cloth", "CLOTH").settings.vertex_group_mass = "Pin"
    thing.modifiers.new("Subdivision", "SUBSURF")
    return thing


@kind
def soft_body(scene: Any) -> Any:
    thing = grid(cells=4)
    thing.modifiers.new("Softbody", "SOFT_BODY")
    thing.soft_body.use_goal = False
    return thing


@kind
def particles(scene: Any) -> Any:
    """An emitter of falling cubes."""
    thing = grid(cells=2, location=(0, 0, 1))
    part = cube(scene, (50, 0, 0), 0.2, "Part")
    settings = thing.modifiers.new("Particles", "PARTICLE_SYSTEM").particle_system.settings
    settings.count, settings.frame_end, settings.lifetime = 20, 10, 100
    settings.render_type, settings.instance_object, settings.particle_size = "OBJECT", part, 1.0
    return thing


@kind
def driven_by_the_scenes_frame(scene: Any) -> Any:
    thing = cube(scene)
    driver(thing, "location", 0, "f / 10 - 1", f=(scene, "frame_current"))
    return thing


@kind
def driven_by_a_property_of_the_scene(scene: Any) -> Any:
    scene["walk"] = 0.0
    for frame, value in ((1, -1.5), (LAST, 1.5)):
        scene["walk"] = value
        scene.keyframe_insert('["walk"]', frame=frame)
    thing = cube(scene)
    driver(thing, "location", 0, "w", w=(scene, '["walk"]'))
    return thing


@kind
def driven_through_an_object_by_the_scene(scene: Any) -> Any:
    between, thing = add(scene, "Between", None), cube(scene)
    driver(between, "location", 2, "f / 20", f=(scene, "frame_current"))
    driver(thing, "location", 0, "z * 2 - 1", z=(between, "location.z"))
    return thing


@kind
def shape_key_driven_by_the_scene(scene: Any) -> Any:
    thing = shape_keys(scene)
    keys = thing.data.shape_keys
    keys.animation_data_clear()
    driver(keys.key_blocks[1], "value", -1, "f / 22", f=(scene, "frame_current"))
    return thing


@kind
def driven_by_an_expression_of_python(scene: Any) -> Any:
    """A driver that reads the scene by name, which the dependency graph doesn't know."""
    thing = cube(scene)
    bpy.app.driver_namespace["walked"] = lambda: bpy.context.scene.frame_current / 10 - 1
    driver(thing, "location", 0, "walked() + frame * 0")
    return thing


@kind
def moved_by_a_script_at_each_frame(scene: Any) -> Any:
    thing = cube(scene)

    def move_thing(changed: Any, _: Any = None) -> None:
        if "Cube" in changed.objects and changed.name == "Scene":
            changed.objects["Cube"].location.x = changed.frame_current / 10 - 1

    bpy.app.handlers.frame_change_pre.append(move_thing)
    return thing


@kind
def hidden_rigid_body(scene: Any) -> Any:
    """Blender doesn't evaluate objects hidden by the eye icon of the Outliner: this one is rejected."""
    thing = rigid_body(scene)
    thing.hide_set(True)
    return thing
