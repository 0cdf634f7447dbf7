"""Who is filmed and where: subjects of the scene, and the boxes that show where they are to be seen."""

# mypy: disable-error-code="valid-type"

import colorsys
from pathlib import Path

import bpy
from bpy.props import BoolProperty, EnumProperty, IntProperty, StringProperty
from mathutils import Vector

from .._protocol.errors import InvalidInput
from .._protocol.limits import MAX_SUBJECTS
from ..capture import shot_cache
from ..capture.geometry import TYPES_WITHOUT_SURFACE
from ..preferences import preferences
from ..properties import is_subject_box
from ..timeline.takes import shot_id
from ..turntable.pictures import pairs_in
from ..ui_state import state
from .base import SentenceForErrors, refuse

# Rare words, one for each new subject: two subjects of a shot must not share one.
TOKENS = ("sks", "ohwx", "zwx", "vrtk", "qxj", "bnha", "pltz", "mrzw")
BOX_WIDTH, BOX_HEIGHT = 0.3, 0.45  # of the frame, of a new box
BOX_DISTANCE = 4.0  # in front of the camera, where a drawn box is easy to select


def add_subject(scene: bpy.types.Scene, thing: bpy.types.Object, name: str) -> bpy.types.PropertyGroup:
    """A new subject with a name, token and colour of its own, shown by `thing`."""
    shot = scene.motionbooth
    if len(shot.subjects) >= MAX_SUBJECTS:
        raise InvalidInput(f"A shot has at most {MAX_SUBJECTS} subjects; remove one.")
    names, tokens = {subject.name for subject in shot.subjects}, {subject.token for subject in shot.subjects}
    if not shot.subjects and not shot.uid:  # a new shot
        shot.model, shot.quality = preferences().default_model, preferences().default_quality
    shot_id(scene)
    subject = shot.subjects.add()
    number = len(shot.subjects)
    subject.name = name if name not in names else f"{name} {number}"
    subject.token = next((token for token in TOKENS if token not in tokens), f"sks{number}")
    subject.color = colorsys.hsv_to_rgb((0.07 + 0.382 * (number - 1)) % 1, 0.85, 1)  # golden section: far apart
    subject.object = thing
    shot.active_subject = number - 1
    return subject


def has_camera(cls: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
    if context.scene.camera is not None and context.scene.camera.type == "CAMERA":
        return True
    return refuse(cls, "The scene has no active camera; add one, or make one active with Ctrl+Numpad 0.")


def has_subject(cls: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
    if context.scene.motionbooth.active_subject < len(context.scene.motionbooth.subjects):
        return True
    return refuse(cls, "Choose a subject in the list first.")


class MOTIONBOOTH_OT_add_subject_box(SentenceForErrors, bpy.types.Operator):
    """Add a rectangle in the camera's view, where a subject is to be seen. Move and keyframe it like any object"""

    bl_idname = "motionbooth.add_subject_box"
    bl_label = "Add Subject Box"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if context.mode != "OBJECT":
            return refuse(cls, "Go to Object Mode first.")
        return has_camera(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if context.space_data is not None and context.space_data.type == "VIEW_3D":
            context.space_data.region_3d.view_perspective = "CAMERA"  # where boxes are drawn
        return self.execute(context)

    def act(self, context: bpy.types.Context) -> None:
        scene = context.scene
        box = make_box(scene)
        add_subject(scene, box, "Subject")
        for thing in context.selected_objects:
            thing.select_set(False)
        box.select_set(True)
        context.view_layer.objects.active = box


def make_box(scene: bpy.types.Scene) -> bpy.types.Object:
    """A flat rectangle of 1 x 1, a child of the camera in the middle of its frame, that is never rendered."""
    mesh = bpy.data.meshes.new("Subject Box")
    mesh.from_pydata([(-0.5, -0.5, 0), (0.5, -0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0)], [], [(0, 1, 2, 3)])
    box = bpy.data.objects.new("Subject Box", mesh)
    scene.collection.objects.link(box)
    box.parent = scene.camera
    box.display_type, box.hide_render, box.show_in_front = "WIRE", True, True
    corners = [Vector(corner) for corner in scene.camera.data.view_frame(scene=scene)]
    if scene.camera.data.type == "PERSP":  # the frame grows with the distance; an orthographic one does not
        corners = [corner * (BOX_DISTANCE / -corner.z) for corner in corners]
    low = Vector(min(corner[axis] for corner in corners) for axis in range(3))
    high = Vector(max(corner[axis] for corner in corners) for axis in range(3))
    middle = (low + high) / 2
    box.location = (middle.x, middle.y, -BOX_DISTANCE)
    box.scale = ((high.x - low.x) * BOX_WIDTH, (high.y - low.y) * BOX_HEIGHT, 1)
    # It stays in the plane of the frame.
    box.lock_location[2] = box.lock_scale[2] = True
    box.lock_rotation = (True, True, True)
    return box


class MOTIONBOOTH_OT_use_selected_object(SentenceForErrors, bpy.types.Operator):
    """Let the active object show where a subject is to be seen: its bounds in the camera's view are the box"""

    bl_idname = "motionbooth.use_selected_object"
    bl_label = "Use Selected Object as Subject"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        thing = context.active_object
        if thing is None or thing.type in TYPES_WITHOUT_SURFACE:
            return refuse(cls, "Select an object that has a shape: a mesh, a rigged character, an empty.")
        if any(subject.object == thing for subject in context.scene.motionbooth.subjects):
            return refuse(cls, "The selected object is a subject already.")
        return True

    def act(self, context: bpy.types.Context) -> None:
        thing = context.active_object
        subject = add_subject(context.scene, thing, thing.name)
        if thing.type in {"MESH", "ARMATURE", "EMPTY"}:
            subject.model_object = thing


class _OfSubject(SentenceForErrors):
    """An operator on the active subject of the list."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return has_subject(cls, context)


class MOTIONBOOTH_OT_choose_pictures(_OfSubject, bpy.types.Operator):
    """Look through folders for pictures of the subject, and learn it from those in one of them"""

    bl_idname = "motionbooth.choose_pictures"
    bl_label = "Use This Folder"
    bl_options = {"REGISTER", "UNDO"}

    directory: StringProperty(name="Folder", subtype="DIR_PATH")
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})
    filter_image: BoolProperty(default=True, options={"HIDDEN"})
    display_type: EnumProperty(items=[("THUMBNAIL", "Thumbnails", "", 3)], options={"HIDDEN"})  # Blender's own number

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        shot = context.scene.motionbooth
        self.directory = bpy.path.abspath(shot.subjects[shot.active_subject].pictures or "//")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def act(self, context: bpy.types.Context) -> None:
        folder = Path(bpy.path.abspath(self.directory))
        if not pairs_in(folder):
            raise InvalidInput(f"There is no picture in {folder}; choose a folder with png, jpg or webp files.")
        shot = context.scene.motionbooth
        shot.subjects[shot.active_subject].pictures = str(folder)


class MOTIONBOOTH_OT_remove_subject(_OfSubject, bpy.types.Operator):
    """Take the subject off the list, and its box out of the scene; an object of yours stays"""

    bl_idname = "motionbooth.remove_subject"
    bl_label = "Remove Subject"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: bpy.types.Context) -> None:
        shot = context.scene.motionbooth
        thing = shot.subjects[shot.active_subject].object
        shot.subjects.remove(shot.active_subject)
        shot.active_subject = max(0, min(shot.active_subject, len(shot.subjects) - 1))
        if (
            thing is not None
            and is_subject_box(thing)
            and not any(subject.object == thing for subject in shot.subjects)
        ):
            bpy.data.objects.remove(thing)


class MOTIONBOOTH_OT_add_to_prompt(_OfSubject, bpy.types.Operator):
    """Write the subject's words into the prompt: the model films it only where the prompt names it"""

    bl_idname = "motionbooth.add_to_prompt"
    bl_label = "Add to Prompt"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: bpy.types.Context) -> None:
        shot = context.scene.motionbooth
        subject = shot.subjects[shot.active_subject]
        if not subject.class_word:
            raise InvalidInput(f'Give subject "{subject.name}" a class first, the ordinary word for it: dog, toy, car.')
        phrase = " ".join(["a", *filter(None, [subject.token, subject.class_word])])
        shot.prompt = f"{shot.prompt.rstrip()} and {phrase}" if shot.prompt.strip() else phrase


class MOTIONBOOTH_OT_use_trained(_OfSubject, bpy.types.Operator):
    """Let the active subject be one that the backend has learned before"""

    bl_idname = "motionbooth.use_trained"
    bl_label = "Use Trained Subject"
    bl_options = {"REGISTER", "UNDO"}

    weights: StringProperty(name="Weights", options={"HIDDEN"})

    def act(self, context: bpy.types.Context) -> None:
        trained = next((row for row in state().trained if row.weights == self.weights), None)
        if trained is None:
            raise InvalidInput("The backend does not have this subject; choose another one, or train it again.")
        shot = context.scene.motionbooth
        subject = shot.subjects[shot.active_subject]
        subject.token, subject.class_word = trained.token, trained.class_word
        subject.weights = trained.weights
        shot.model = trained.model


class MOTIONBOOTH_OT_read_by_playing(bpy.types.Operator):
    """Play the scene from its first frame to read what is simulated. This takes longer; the current frame stays"""

    bl_idname = "motionbooth.read_by_playing"
    bl_label = "Read by Playing"

    def execute(self, context: bpy.types.Context) -> set[str]:
        shot_cache.read_by_playing(context.scene)
        return {"FINISHED"}


class MOTIONBOOTH_OT_go_to_frame(bpy.types.Operator):
    """Go to the frame where this happens"""

    bl_idname = "motionbooth.go_to_frame"
    bl_label = "Go to Frame"

    frame: IntProperty(name="Frame", options={"HIDDEN"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.frame_set(self.frame)
        return {"FINISHED"}


CLASSES = (
    MOTIONBOOTH_OT_add_subject_box,
    MOTIONBOOTH_OT_use_selected_object,
    MOTIONBOOTH_OT_choose_pictures,
    MOTIONBOOTH_OT_remove_subject,
    MOTIONBOOTH_OT_add_to_prompt,
    MOTIONBOOTH_OT_use_trained,
    MOTIONBOOTH_OT_read_by_playing,
    MOTIONBOOTH_OT_go_to_frame,
)
