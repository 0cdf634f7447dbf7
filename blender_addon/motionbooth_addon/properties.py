"""What a .blend keeps of a shot: its settings, subjects and takes. Never keys, passwords or connection files."""

# The annotations below are Blender's property definitions, not types, so neither mypy nor PEP 563 may touch them.
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
from ._protocol.limits import MAX_NAME, MAX_TEXT
from .capture.geometry import TYPES_WITHOUT_SURFACE
from .timeline import takes

QUALITIES = [
    ("MODEL", "Standard", "The number of steps that the model is made for"),
    ("DRAFT", "Draft", "10 steps: quick, for timing and framing"),
    ("FINE", "Fine", "50 steps: slow"),
]


def has_shape(_: bpy.types.PropertyGroup, thing: bpy.types.Object) -> bool:
    """What the picker for a subject's place offers."""
    return thing.type not in TYPES_WITHOUT_SURFACE


def can_be_pictured(subject: bpy.types.PropertyGroup, thing: bpy.types.Object) -> bool:
    """What the picker for training pictures offers: what can be rendered, alone or with its parts; no subject's box."""
    if thing.type in TYPES_WITHOUT_SURFACE or is_subject_box(thing):
        return False
    return thing.type not in {"EMPTY", "LATTICE"} or bool(thing.children) or thing.instance_collection is not None


def is_subject_box(thing: bpy.types.Object) -> bool:
    """Whether it is a rectangle that was made to show where a subject is to be seen."""
    return thing.data is not None and thing.data.name.startswith("Subject Box")


class MotionBoothSubject(bpy.types.PropertyGroup):
    """One subject of the shot: `name` (Blender's own property), its words, and where it is."""

    token: StringProperty(
        name="Token",
        description="The rare word that will stand for your subject in prompts. Empty for something the model knows",
        default="sks",
        maxlen=MAX_NAME,
    )
    class_word: StringProperty(
        name="Class", description="The ordinary word for what it is: dog, toy, car", maxlen=MAX_NAME
    )
    color: FloatVectorProperty(
        name="Color",
        subtype="COLOR",
        size=3,
        min=0,
        max=1,
        default=(1.0, 0.45, 0.1),
        description="Of its box on screen",
    )
    object: PointerProperty(
        name="Object",
        type=bpy.types.Object,
        poll=has_shape,
        description="Where the subject is to be seen: a rectangle parented to the camera, or any object of the scene",
    )
    model_object: PointerProperty(
        name="3-D Object",
        type=bpy.types.Object,
        poll=can_be_pictured,
        description="The subject itself, with everything parented to it: its training pictures are rendered from it",
    )
    pictures: StringProperty(
        name="Pictures",
        subtype="DIR_PATH",
        options=compat.RELATIVE_PATH,
        description="A folder of pictures of the subject (png, jpg), where there is no 3-D object. "
        "A mask for dog.jpg may lie beside it as dog_mask.png",
    )
    weights: StringProperty(
        name="Trained", description="The trained subject, by the name that the backend gave it", maxlen=64
    )


class MotionBoothTake(bpy.types.PropertyGroup):
    """One result, `name`d as its strip: which job made it, where its clip is, and with what it was made."""

    job_id: StringProperty(name="Job", maxlen=64)
    clip_path: StringProperty(name="Clip", subtype="FILE_PATH", options=compat.RELATIVE_PATH)
    settings: StringProperty(name="Settings", description="What was sent, as JSON: enough to make the take again")
    seed: IntProperty(name="Seed", description="With it and the same settings, the same clip is made again")
    starred: BoolProperty(name="Star", description="Mark this take as one to keep")


class MotionBoothShot(bpy.types.PropertyGroup):
    """A shot is a scene: its frame range, render size, frame rate and active camera, and these settings."""

    name: StringProperty(name="Shot", description="Empty: the scene's name", maxlen=MAX_NAME)
    prompt: StringProperty(
        name="Prompt",
        description='What is to be seen, each subject as "token class": a sks dog runs on the beach',
        maxlen=MAX_TEXT,
    )
    negative_prompt: StringProperty(name="Negative Prompt", description="What is not to be seen", maxlen=MAX_TEXT)
    background_phrase: StringProperty(
        name="Background Words", description="Words of the prompt that belong outside all boxes", maxlen=MAX_TEXT
    )
    uid: StringProperty(name="Id", description="By which jobs know the shot they belong to", maxlen=64)
    seed: IntProperty(name="Seed", min=0, description="The same seed and settings make the same clip")
    new_seed: BoolProperty(
        name="New Seed for Each Take",
        default=True,
        description="Film each take with a seed of its own. Off: with the seed below, which makes the same take again; "
        "further takes count up from it",
    )
    take_count: IntProperty(name="Takes", min=1, max=16, default=1, description="How many takes are generated at once")
    quality: EnumProperty(
        name="Quality",
        items=[*QUALITIES, ("CUSTOM", "Custom", "A number of steps of your own")],
        description="How much time is spent on a clip",
    )
    steps: IntProperty(name="Steps", min=1, max=1000, default=25, description="Denoising steps of a clip")
    model: StringProperty(name="Model", default="toybox", maxlen=MAX_NAME, description="Base model of the backend")
    background_distance: FloatProperty(
        name="Background Distance",
        subtype="DISTANCE",
        unit="LENGTH",
        min=0.001,
        default=10.0,
        description="How far away the background is whose sliding across the view is measured",
    )
    framing: EnumProperty(
        name="Framing",
        items=[
            (
                "FIT",
                "Fit",
                "The whole shot is generated, and fills the finished frame; what the model adds is not seen",
            ),
            ("CROP", "Crop", "The model's frame lies inside the shot's; the edges of the shot are cut"),
        ],
        description="How the model's frame lies in the shot's, where the two have different shapes",
    )
    camera_mode: EnumProperty(
        name="Camera",
        items=[
            ("MEASURED", "Measured", "The camera path is read from the scene's active camera"),
            ("DRAWN", "Drawn Pan", "The camera path is the keyframed pan below"),
        ],
    )
    pan: FloatVectorProperty(
        name="Pan",
        size=2,
        min=-10,
        max=10,
        subtype="XYZ",
        description="How far the camera has travelled, in widths and heights of the frame: right and down are positive",
    )
    box_control: BoolProperty(name="Follow Boxes", default=True)
    camera_control: BoolProperty(name="Follow Camera", default=True)
    subjects: CollectionProperty(type=MotionBoothSubject)
    active_subject: IntProperty(min=0)
    takes: CollectionProperty(type=MotionBoothTake)
    active_take: IntProperty(min=0, update=lambda shot, _: takes.mute_inactive(shot.id_data))
