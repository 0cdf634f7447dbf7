"""The properties of a shot that a .blend stores: settings, subjects and takes, but no keys or connection files."""

# The annotations below are Blender's property definitions, not types: no `from __future__ import annotations` here.
# mypy: disable-error-code="valid-type"

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    FloatVectorProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from . import compat
from ._protocol.limits import BACKGROUND_STRENGTH, MAX_NAME, MAX_TEXT, SUBJECT_STRENGTH
from .capture.geometry import TYPES_WITHOUT_SURFACE
from .timeline import takes

QUALITIES = [
    ("MODEL", "Standard", "Use the number of steps recommended for the model"),
    ("DRAFT", "Draft", "Use 10 steps, a fast preview of timing and framing"),
    ("FINE", "Fine", "Use 50 steps, which is slow"),
]

MASTERS = (
    ("NONE", "None", "Generate only the mp4"),
    ("prores", "ProRes 422 HQ", "A movie in 10 bits, compressed"),
    ("prores-4444", "ProRes 4444 XQ", "A movie in 10 bits with the full resolution of color, compressed"),
    ("dnxhr", "DNxHR HQX", "A movie in 10 bits, compressed"),
    ("ffv1", "FFV1", "A movie in 16 bits without any loss"),
    ("png", "PNG Sequence", "Images in 16 bits without any loss"),
    ("exr", "OpenEXR Sequence", "Images in 16-bit floats, linear"),
)

ENGINES = (
    ("ati", "ATI", "Point tracks for ATI, a model of the Wan 2.1 family"),
    ("wan-move", "Wan-Move", "Point tracks for Wan-Move"),
    ("comfyui", "ComfyUI", "A workflow for ComfyUI with the ATI model"),
    ("vace", "VACE", "Box and mask videos for VACE, a model of the Wan 2.1 family"),
    ("ic-lora", "LTX IC-LoRA", "A control video for LTX-Video, from the rendered scene guide"),
    ("cameractrl", "CameraCtrl", "Camera poses for CameraCtrl"),
    ("recammaster", "ReCamMaster", "Camera poses for ReCamMaster"),
    ("motionbooth-script", "MotionBooth Script", "A script in the format of the MotionBooth paper's authors"),
)


def can_be_proxy(_: bpy.types.PropertyGroup, candidate: bpy.types.Object) -> bool:
    """Whether an object can be chosen as a proxy object."""
    return candidate.type not in TYPES_WITHOUT_SURFACE


def can_be_rendered(_: bpy.types.PropertyGroup, candidate: bpy.types.Object) -> bool:
    """Whether an object can be chosen as a training object: it or its children can be rendered."""
    if candidate.type in TYPES_WITHOUT_SURFACE or is_subject_box(candidate):
        return False
    if candidate.type not in {"EMPTY", "LATTICE"}:
        return True
    return bool(candidate.children) or candidate.instance_collection is not None


def is_subject_box(candidate: bpy.types.Object) -> bool:
    """Whether an object is a rectangle that Add Subject Box has made."""
    return candidate.data is not None and candidate.data.name.startswith("Subject Box")


class MotionBoothSubject(bpy.types.PropertyGroup):
    """A subject of the shot: its `name` (Blender's own property), token and class, proxy object and training source."""

    token: StringProperty(
        name="Token",
        description="Rare word that stands for the subject in prompts. If empty, the model's own knowledge is used",
        default="sks",
        maxlen=MAX_NAME,
    )
    class_word: StringProperty(
        name="Class", description="Common word for the kind of subject, such as dog, toy or car", maxlen=MAX_NAME
    )
    color: FloatVectorProperty(
        name="Color",
        subtype="COLOR",
        size=3,
        min=0,
        max=1,
        default=(1.0, 0.45, 0.1),
        description="Color of the subject's box in the overlay",
    )
    object: PointerProperty(
        name="Proxy Object",
        type=bpy.types.Object,
        poll=can_be_proxy,
        description="Object whose position in the camera view is the subject's box: a subject box, or any object",
    )
    training_object: PointerProperty(
        name="Training Object",
        type=bpy.types.Object,
        poll=can_be_rendered,
        description="3D model of the subject. Its training images are rendered from it and its children",
    )
    training_images: StringProperty(
        name="Training Images",
        subtype="DIR_PATH",
        options=compat.RELATIVE_PATH,
        description="Folder with images of the subject (png, jpg or webp), used if there is no training object. "
        "The mask of dog.jpg may be in the same folder as dog_mask.png",
    )
    weights: StringProperty(
        name="Trained Weights", description="Checksum of the trained weights on the backend", maxlen=64
    )


class MotionBoothTake(bpy.types.PropertyGroup):
    """A generated clip, `name`d like its strip, with the job that generated it and its settings."""

    job_id: StringProperty(name="Job", maxlen=64)
    clip_path: StringProperty(name="Clip", subtype="FILE_PATH", options=compat.RELATIVE_PATH)
    master_path: StringProperty(
        name="Master",
        description="The movie of the exact frames beside the clip, or the folder of the image sequence",
        get=takes.master_path,
    )
    settings: StringProperty(name="Settings", description="Settings of the generation as JSON")
    seed: IntProperty(name="Seed", description="Seed of this take")
    starred: BoolProperty(name="Star", description="Mark this take as a favorite")


class MotionBoothStyle(bpy.types.PropertyGroup):
    """A LoRA of another program, used together with the subjects."""

    path: StringProperty(
        name="Style",
        subtype="FILE_PATH",
        options=compat.RELATIVE_PATH,
        description="LoRA of another program for the same model (a safetensors file), such as a drawing style. "
        "It is used together with the subjects",
    )
    strength: FloatProperty(
        name="Style Strength",
        min=-2,
        max=2,
        default=1,
        description="How strongly the style acts; 1 is its own strength",
    )


class MotionBoothShot(bpy.types.PropertyGroup):
    """The shot of a scene: these settings, with the scene's frame range, resolution, frame rate and active camera."""

    name: StringProperty(name="Shot", description="Name of the shot; the scene's name if empty", maxlen=MAX_NAME)
    prompt: StringProperty(
        name="Prompt",
        description='Description of the clip, with each subject as "token class": a sks dog runs on the beach',
        maxlen=MAX_TEXT,
    )
    negative_prompt: StringProperty(
        name="Negative Prompt", description="Description of what the clip should not show", maxlen=MAX_TEXT
    )
    background_phrase: StringProperty(
        name="Background Phrase", description="Words of the prompt that apply outside of all boxes", maxlen=MAX_TEXT
    )
    uid: StringProperty(name="ID", description="Identifier by which jobs refer to this shot", maxlen=64)
    seed: IntProperty(name="Seed", min=0, description="Seed of the random noise; the same seed gives the same clip")
    random_seed: BoolProperty(
        name="Random Seed",
        default=True,
        description="Use a new random seed for each take. When disabled, the first take uses the seed below, "
        "and further takes count up from it",
    )
    take_count: IntProperty(name="Takes", min=1, max=16, default=1, description="Number of takes to generate")
    quality: EnumProperty(
        name="Quality",
        items=[*QUALITIES, ("CUSTOM", "Custom", "Set the number of steps")],
        description="Trade generation time for quality",
    )
    steps: IntProperty(name="Steps", min=1, max=1000, default=25, description="Number of denoising steps")
    master: EnumProperty(
        name="Master",
        items=MASTERS,
        description="What is written beside the clip, from the frames before they are compressed. The timeline keeps "
        "the mp4 as its proxy",
    )
    model: StringProperty(
        name="Model", default="toybox", maxlen=MAX_NAME, description="Base model for generating the clip"
    )
    background_distance: FloatProperty(
        name="Background Distance",
        subtype="DISTANCE",
        unit="LENGTH",
        min=0.001,
        default=10.0,
        description="Distance from the camera at which its motion is measured, usually that of the visible background",
    )
    use_parallax: BoolProperty(
        name="Parallax",
        description="Read the distances of the scene's objects, so that nearer things move faster in the clip. "
        "Evaluates the whole scene at each of the model's frames",
    )
    long_shot: EnumProperty(
        name="Long Shot",
        items=[
            (
                "WINDOWS",
                "Windows",
                "Generate all frames at the model's frame rate, in overlapping windows. Takes longer",
            ),
            ("SPREAD", "Spread Frames", "Spread the frames of one clip over the shot and hold each"),
        ],
        description="How to generate a shot that lasts longer than the model's clip",
    )
    framing: EnumProperty(
        name="Framing",
        items=[
            ("FIT", "Fit", "Generate the whole shot and hide what the model generates beyond it"),
            ("CROP", "Crop", "Fill the shot with the model's frame as far as it reaches and leave the edges empty"),
        ],
        description="How to fit the model's frame to the shot if their aspect ratios differ",
    )
    camera_mode: EnumProperty(
        name="Camera Path",
        items=[
            ("MEASURED", "Scene Camera", "Measure the camera path from the motion of the scene's camera"),
            ("KEYFRAMED", "Keyframed Pan", "Use the keyframed pan below as the camera path"),
        ],
        description="Source of the camera path",
    )
    pan: FloatVectorProperty(
        name="Pan",
        size=2,
        min=-10,
        max=10,
        subtype="XYZ",
        description="Camera offset in frame widths and heights; right and down are positive",
    )
    styles: CollectionProperty(type=MotionBoothStyle)
    box_control: BoolProperty(name="Follow Boxes", default=True, description="Keep each subject inside its box")
    camera_control: BoolProperty(
        name="Follow Camera", default=True, description="Move the background with the camera path"
    )
    hold_frames: BoolProperty(
        name="Hold Frames",
        description="Show each of the model's frames until the next one, although the backend could interpolate",
    )
    upscale: BoolProperty(
        name="Upscale", description="Enlarge the clip's frames with the backend's upscaling network, if it has one"
    )
    engine: EnumProperty(
        name="Video Engine", items=ENGINES, description="The engine that will generate the clip from the exported shot"
    )
    use_guide: BoolProperty(
        name="Scene Guide",
        description="Start from a simple render of the scene instead of from noise alone. It is rendered again only "
        "after the scene has changed",
    )
    guide_clip: StringProperty(
        name="Clip",
        subtype="FILE_PATH",
        options=compat.RELATIVE_PATH,
        description="Start from this clip, such as an earlier take or a playblast, or with this picture as the first "
        "frame, instead of from a render of the scene. It must have the model's aspect ratio, and a "
        "clip also the shot's duration",
    )
    guide_subject: FloatProperty(
        name="Subject",
        subtype="FACTOR",
        min=0,
        max=1,
        default=SUBJECT_STRENGTH,
        description="How closely the subjects follow the guide",
    )
    guide_background: FloatProperty(
        name="Background",
        subtype="FACTOR",
        min=0,
        max=1,
        default=BACKGROUND_STRENGTH,
        description="How closely the background follows the guide. A picture needs 0.7 or more for the clip to "
        "continue from it",
    )
    subjects: CollectionProperty(type=MotionBoothSubject)
    active_subject: IntProperty(min=0)
    takes: CollectionProperty(type=MotionBoothTake)
    active_take: IntProperty(min=0, update=lambda shot, _: takes.mute_inactive(shot.id_data))
