"""`python install_and_generate.py ZIP CONNECTION OUT CHECKOUT`, in a Blender module without the source tree.

Installs and enables the extension, animates a subject's box with its operators, trains the subject on a 3-D object,
generates a clip, and disables the extension. Writes OUT/passed at the end. Run by test_build.py with several releases.
"""

import sys
from pathlib import Path

archive, connection, out, checkout = map(Path, sys.argv[1:])
sys.path = [entry for entry in sys.path if not entry.startswith(str(checkout)) or "site-packages" in entry]

import bpy  # noqa: E402

# isort: split
# This exists once bpy is loaded, and not before.
import bmesh  # noqa: E402

NAME = "bl_ext.user_default.motionbooth"
bpy.ops.extensions.package_install_files(filepath=str(archive), repo="user_default", enable_on_install=True)
assert NAME in bpy.context.preferences.addons, "not enabled"

import bl_ext.user_default.motionbooth as extension  # noqa: E402
from bl_ext.user_default.motionbooth import compat, files  # noqa: E402
from bl_ext.user_default.motionbooth.batch import blender_command  # noqa: E402
from bl_ext.user_default.motionbooth.capture import dependencies, shot_warnings, shots  # noqa: E402
from bl_ext.user_default.motionbooth.jobs import controller  # noqa: E402
from bl_ext.user_default.motionbooth.timeline import clips  # noqa: E402

library = Path(bpy.utils.user_resource("EXTENSIONS"), ".local", "lib")
wheels = [*library.glob("python3.*/site-packages/*/__init__.py"), *library.glob("site-packages/*/__init__.py")]
assert {wheel.parent.name for wheel in wheels} >= {"zmq", "msgspec"}, "the wheels are not installed"

# The files of an earlier version are moved when the controller is created.
former = files.former_folder()
assert former.is_relative_to(bpy.utils.user_resource("EXTENSIONS")), former
(former / "clips").mkdir(parents=True)
(former / "clips" / "old.mp4").write_bytes(b"an old clip")
controller.job_controller()
kept = files.user_folder() / "clips" / "old.mp4"
assert kept.read_bytes() == b"an old clip"

# A shot: a box that crosses the frame, a camera that pans.
scene = bpy.context.scene
scene.frame_start, scene.frame_end = 1, 48
scene.render.resolution_x, scene.render.resolution_y, scene.render.fps = 960, 640, 24
camera = scene.camera
for frame, turn in ((1, 0.1), (48, -0.1)):
    camera.rotation_euler = (1.5, 0, turn)
    camera.keyframe_insert("rotation_euler", frame=frame)
bpy.ops.motionbooth.add_subject_box()
subject = scene.motionbooth.subjects[0]
box = subject.object
for frame, x in ((1, -0.8), (48, 0.8)):
    box.location.x = x
    box.keyframe_insert("location", frame=frame)
assert compat.keyed_frames(box) == {1, 48}
body = bpy.data.meshes.new("Imp")
shape = bmesh.new()
bmesh.ops.create_icosphere(shape, subdivisions=2, radius=1)
shape.to_mesh(body)
shape.free()
subject.name, subject.token, subject.class_word = "Imp", "sks", "toy"
subject.training_object = bpy.data.objects.new("Imp", body)
scene.collection.objects.link(subject.training_object)
scene.motionbooth.prompt = "a sks toy on the grass"
said = shots.read_shot(scene, 8).warnings
assert not said, said

# A subject with geometry nodes, whose inputs are elsewhere in each release.
nodes = bpy.data.node_groups.new("Nodes", "GeometryNodeTree")
nodes.interface.new_socket("Named", in_out="INPUT", socket_type="NodeSocketObject")
modifier = subject.training_object.modifiers.new("Nodes", "NODES")
modifier.node_group = nodes
assert dependencies.playback_reason([subject.training_object]) is None
subject.training_object.modifiers.clear()
assert isinstance(shot_warnings.SMALLEST_WIDTH, float)

blend = out / "scene.blend"
bpy.ops.wm.save_as_mainfile(filepath=str(blend))
options = ["--connection", str(connection), "--out", str(out)]
assert blender_command.execute(["generate", str(blend), *options]) == 0, "not generated"
assert (out / "clip.mp4").stat().st_size > 1000

# The copy, as Blender opens it again.
bpy.ops.wm.open_mainfile(filepath=str(out / "shot.blend"))
(strip,) = compat.strips(bpy.context.scene.sequence_editor)
assert compat.strip_range(strip) == (1, 48), "the clip does not fill the shot"
(take,) = bpy.context.scene.motionbooth.takes
assert Path(bpy.path.abspath(take.clip_path)) == out / "clip.mp4"
assert bpy.context.scene.motionbooth.subjects[0].weights, "the subject is not trained"
assert bpy.context.scene.view_settings.view_transform == "AgX", "the scene's look was changed"
assert strip.colorspace_settings.name == "AgX Base sRGB"

# Saved elsewhere, take and strip show the same clip.
(out / "elsewhere").mkdir()
bpy.ops.wm.save_as_mainfile(filepath=str(out / "elsewhere" / "shot.blend"))
assert take.clip_path == "//../clip.mp4", take.clip_path
assert clips.absolute(strip.filepath) == clips.clip_of(take) == (out / "clip.mp4").resolve()

bpy.ops.preferences.addon_disable(module=extension.__name__)
assert not hasattr(bpy.types.Scene, "motionbooth"), "something stays registered"
assert "motionbooth_addon" not in sys.modules
assert "motionbooth_protocol" not in sys.modules
(out / "passed").write_text(f"{bpy.app.version_string} {extension.__file__}")
