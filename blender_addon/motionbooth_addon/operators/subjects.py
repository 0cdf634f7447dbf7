"""Operators on the subjects of a shot and their boxes."""

# mypy: disable-error-code="valid-type"

import colorsys
from pathlib import Path

import bpy
from bpy.props import BoolProperty, EnumProperty, IntProperty, StringProperty
from mathutils import Vector

from .._protocol.errors import InvalidInput
from .._protocol.limits import MAX_SUBJECTS
from .._protocol.picture_files import pictures_with_masks
from ..capture import shot_cache
from ..capture.geometry import TYPES_WITHOUT_SURFACE
from ..preferences import preferences
from ..properties import is_subject_box
from ..timeline.takes import shot_id
from ..ui_state import state
from .base import ReportsErrors, refuse

# Rare words for new subjects: no two subjects of a shot may share one.
TOKENS = ("sks", "ohwx", "zwx", "vrtk", "qxj", "bnha", "pltz", "mrzw")
BOX_WIDTH, BOX_HEIGHT = 0.3, 0.45  # size of a new box, in shares of the frame
BOX_DISTANCE = 4.0  # of a new box from the camera


def add_subject(scene: bpy.types.Scene, proxy: bpy.types.Object, name: str) -> bpy.types.PropertyGroup:
    """Add a subject with a unique name, token and color, and the given proxy object. Raises InvalidInput."""
    shot = scene.motionbooth
    if len(shot.subjects) >= MAX_SUBJECTS:
        raise InvalidInput("A shot has at most {most} subjects. Remove one first.", most=MAX_SUBJECTS)
    names, tokens = {subject.name for subject in shot.subjects}, {subject.token for subject in shot.subjects}
    if not shot.subjects and not shot.uid:  # a new shot
        shot.model, shot.quality = preferences().default_model, preferences().default_quality
    shot_id(scene)
    subject = shot.subjects.add()
    number = len(shot.subjects)
    subject.name = name if name not in names else f"{name} {number}"
    subject.token = next((token for token in TOKENS if token not in tokens), f"sks{number}")
    subject.color = colorsys.hsv_to_rgb((0.07 + 0.382 * (number - 1)) % 1, 0.85, 1)  # golden ratio: distinct hues
    subject.object = proxy
    shot.active_subject = number - 1
    return subject


def has_camera(cls: type[bpy.types.Operator], scene: bpy.types.Scene) -> bool:
    """For `poll`: the scene must have an active camera."""
    has_one = scene.camera is not None and scene.camera.type == "CAMERA"
    return has_one or refuse(cls, "The scene has no active camera. Add one, or make one active with Ctrl+Numpad 0.")


def has_subject(cls: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
    """For `poll`: a subject must be selected in the list."""
    shot = context.scene.motionbooth
    return shot.active_subject < len(shot.subjects) or refuse(cls, "Select a subject in the list first.")


class MOTIONBOOTH_OT_add_subject_box(ReportsErrors, bpy.types.Operator):
    """Add a subject with a rectangle in the camera view as its box. Move and keyframe it like any object"""

    bl_idname = "motionbooth.add_subject_box"
    bl_label = "Add Subject Box"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if context.mode != "OBJECT":
            return refuse(cls, "Switch to Object Mode first.")
        return has_camera(cls, context.scene)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if context.space_data is not None and context.space_data.type == "VIEW_3D":
            context.space_data.region_3d.view_perspective = "CAMERA"
        return self.execute(context)

    def act(self, context: bpy.types.Context) -> None:
        scene = context.scene
        box = make_box(scene)
        add_subject(scene, box, "Subject")
        for selected in context.selected_objects:
            selected.select_set(False)
        box.select_set(True)
        context.view_layer.objects.active = box


def make_box(scene: bpy.types.Scene) -> bpy.types.Object:
    """Make a 1 x 1 rectangle, parented to the camera, centered in its frame and hidden in renders."""
    mesh = bpy.data.meshes.new("Subject Box")
    mesh.from_pydata([(-0.5, -0.5, 0), (0.5, -0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0)], [], [(0, 1, 2, 3)])
    box = bpy.data.objects.new("Subject Box", mesh)
    scene.collection.objects.link(box)
    box.parent = scene.camera
    box.display_type, box.hide_render, box.show_in_front = "WIRE", True, True
    corners = [Vector(corner) for corner in scene.camera.data.view_frame(scene=scene)]
    if scene.camera.data.type == "PERSP":  # an orthographic frame does not grow with the distance
        corners = [corner * (BOX_DISTANCE / -corner.z) for corner in corners]
    low = Vector(min(corner[axis] for corner in corners) for axis in range(3))
    high = Vector(max(corner[axis] for corner in corners) for axis in range(3))
    middle = (low + high) / 2
    box.location = (middle.x, middle.y, -BOX_DISTANCE)
    box.scale = ((high.x - low.x) * BOX_WIDTH, (high.y - low.y) * BOX_HEIGHT, 1)
    # Keep it in the plane of the frame.
    box.lock_location[2] = box.lock_scale[2] = True
    box.lock_rotation = (True, True, True)
    return box


class MOTIONBOOTH_OT_use_selected_object(ReportsErrors, bpy.types.Operator):
    """Add a subject with the active object as its proxy. The object's bounds in the camera view are the box"""

    bl_idname = "motionbooth.use_selected_object"
    bl_label = "Use Active Object as Subject"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        selected = context.active_object
        if selected is None or selected.type in TYPES_WITHOUT_SURFACE:
            return refuse(cls, "Select an object with a shape, such as a mesh, a rigged character or an empty.")
        if any(subject.object == selected for subject in context.scene.motionbooth.subjects):
            return refuse(cls, "The selected object is already a subject.")
        return True

    def act(self, context: bpy.types.Context) -> None:
        proxy = context.active_object
        subject = add_subject(context.scene, proxy, proxy.name)
        if proxy.type in {"MESH", "ARMATURE", "EMPTY"}:
            subject.training_object = proxy


class _SubjectOperator(ReportsErrors):
    """Base of operators on the active subject of the list."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return has_subject(cls, context)


class MOTIONBOOTH_OT_choose_training_images(_SubjectOperator, bpy.types.Operator):
    """Choose a folder with images of the subject to train it on"""

    bl_idname = "motionbooth.choose_training_images"
    bl_label = "Use This Folder"
    bl_options = {"REGISTER", "UNDO"}

    directory: StringProperty(name="Folder", subtype="DIR_PATH")
    filter_folder: BoolProperty(default=True, options={"HIDDEN"})
    filter_image: BoolProperty(default=True, options={"HIDDEN"})
    display_type: EnumProperty(items=[("THUMBNAIL", "Thumbnails", "", 3)], options={"HIDDEN"})  # Blender's own number

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        shot = context.scene.motionbooth
        self.directory = bpy.path.abspath(shot.subjects[shot.active_subject].training_images or "//")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def act(self, context: bpy.types.Context) -> None:
        folder = Path(bpy.path.abspath(self.directory))
        if not pictures_with_masks(folder):
            raise InvalidInput(
                "There are no images in {folder}. Choose a folder with PNG, JPEG or WebP files.", folder=folder
            )
        shot = context.scene.motionbooth
        shot.subjects[shot.active_subject].training_images = str(folder)


class MOTIONBOOTH_OT_remove_subject(_SubjectOperator, bpy.types.Operator):
    """Remove the active subject from the list and delete its subject box. Other objects are kept"""

    bl_idname = "motionbooth.remove_subject"
    bl_label = "Remove Subject"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: bpy.types.Context) -> None:
        shot = context.scene.motionbooth
        proxy = shot.subjects[shot.active_subject].object
        shot.subjects.remove(shot.active_subject)
        shot.active_subject = max(0, min(shot.active_subject, len(shot.subjects) - 1))
        is_shared = any(subject.object == proxy for scene in bpy.data.scenes for subject in scene.motionbooth.subjects)
        if proxy is not None and is_subject_box(proxy) and not is_shared:
            bpy.data.objects.remove(proxy)


class MOTIONBOOTH_OT_add_to_prompt(_SubjectOperator, bpy.types.Operator):
    """Add the subject's token and class to the prompt. A subject appears only if the prompt names it"""

    bl_idname = "motionbooth.add_to_prompt"
    bl_label = "Add to Prompt"
    bl_options = {"REGISTER", "UNDO"}

    def act(self, context: bpy.types.Context) -> None:
        shot = context.scene.motionbooth
        subject = shot.subjects[shot.active_subject]
        if not subject.class_word:
            raise InvalidInput('Give subject "{subject}" a class first, such as dog, toy or car.', subject=subject.name)
        phrase = " ".join(["a", *filter(None, [subject.token, subject.class_word])])
        shot.prompt = f"{shot.prompt.rstrip()} and {phrase}" if shot.prompt.strip() else phrase


class MOTIONBOOTH_OT_use_trained(_SubjectOperator, bpy.types.Operator):
    """Use a subject that was trained before as the active subject"""

    bl_idname = "motionbooth.use_trained"
    bl_label = "Use Trained Subject"
    bl_options = {"REGISTER", "UNDO"}

    weights: StringProperty(name="Weights", options={"HIDDEN"})

    def act(self, context: bpy.types.Context) -> None:
        trained = next((row for row in state().trained if row.weights == self.weights), None)
        if trained is None:
            raise InvalidInput("The backend no longer has this subject. Choose another one, or train it again.")
        shot = context.scene.motionbooth
        subject = shot.subjects[shot.active_subject]
        subject.token, subject.class_word = trained.token, trained.class_word
        subject.weights = trained.weights
        shot.model = trained.model


class MOTIONBOOTH_OT_read_by_playing(bpy.types.Operator):
    """Play the scene from its first frame to read simulations. This is slower and keeps the current frame"""

    bl_idname = "motionbooth.read_by_playing"
    bl_label = "Read with Playback"

    def execute(self, context: bpy.types.Context) -> set[str]:
        shot_cache.read_by_playing(context.scene)
        return {"FINISHED"}


class MOTIONBOOTH_OT_go_to_frame(bpy.types.Operator):
    """Jump to the first frame of this warning"""

    bl_idname = "motionbooth.go_to_frame"
    bl_label = "Go to Frame"

    frame: IntProperty(name="Frame", options={"HIDDEN"})

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.frame_set(self.frame)
        return {"FINISHED"}


CLASSES = (
    MOTIONBOOTH_OT_add_subject_box,
    MOTIONBOOTH_OT_use_selected_object,
    MOTIONBOOTH_OT_choose_training_images,
    MOTIONBOOTH_OT_remove_subject,
    MOTIONBOOTH_OT_add_to_prompt,
    MOTIONBOOTH_OT_use_trained,
    MOTIONBOOTH_OT_read_by_playing,
    MOTIONBOOTH_OT_go_to_frame,
)
