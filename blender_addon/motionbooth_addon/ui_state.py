"""What the panels show of the backend and of all jobs. Kept by the WindowManager: never saved, no part of undo."""

# mypy: disable-error-code="valid-type"

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    StringProperty,
)


def show_jobs() -> None:
    """List the jobs anew."""
    from .jobs.controller import session  # which needs these classes

    session().screen.show_jobs()


class MotionBoothModel(bpy.types.PropertyGroup):
    """A base model of the backend, by its `name`."""

    title: StringProperty()
    frames: IntProperty()
    width: IntProperty()
    height: IntProperty()
    fps: FloatProperty()


class MotionBoothTrained(bpy.types.PropertyGroup):
    """A subject that the backend has learned, by its `name`."""

    token: StringProperty()
    class_word: StringProperty()
    model: StringProperty()
    weights: StringProperty()
    picture: StringProperty(description="A file that shows it, or nothing")


class MotionBoothJob(bpy.types.PropertyGroup):
    """A job as the list shows it; the ledger has the rest. `name` is its title."""

    job: StringProperty()
    model: StringProperty()
    kind: StringProperty()
    state: StringProperty()
    stage: StringProperty()
    factor: FloatProperty(min=0, max=1)
    counted: BoolProperty(description="Whether the stage has a known number of steps")
    seconds_left: FloatProperty(default=-1, description="Less than 0: nobody knows")
    error: StringProperty()
    scene: StringProperty()
    blend: StringProperty()
    here: BoolProperty(description="Whether it belongs to a shot of the open .blend")
    placed: BoolProperty()
    awaits: StringProperty(description="The subjects that are still trained for it")
    picture: StringProperty(description="The latest preview's file, or nothing")
    masks: StringProperty(description="A file that shows the masks a training used, or nothing")
    doubts: StringProperty(description="A file with what speaks against these masks, or nothing")


class MotionBoothState(bpy.types.PropertyGroup):
    link: EnumProperty(
        items=[
            ("NONE", "No backend", ""),
            ("STARTING", "Starting", ""),
            ("CONNECTING", "Connecting", ""),
            ("LINKED", "Connected", ""),
            ("LOST", "Not reachable", ""),
        ]
    )
    link_text: StringProperty(description="The backend's name, or why there is no connection")
    install_stage: StringProperty(description="What the installation of a backend does, or nothing")
    install_factor: FloatProperty(min=0, max=1)
    notice: StringProperty(description="What the status bar says for a while")
    notice_is_error: BoolProperty()
    models: CollectionProperty(type=MotionBoothModel)
    trained: CollectionProperty(type=MotionBoothTrained)
    active_trained: IntProperty(min=0)
    jobs: CollectionProperty(type=MotionBoothJob)
    active_job: IntProperty(min=0)
    all_files: BoolProperty(
        name="Jobs of All Files",
        description="List the jobs of other .blend files, too. Off: those of this file only",
        update=lambda _, __: show_jobs(),
    )


def state() -> MotionBoothState:
    return bpy.context.window_manager.motionbooth
