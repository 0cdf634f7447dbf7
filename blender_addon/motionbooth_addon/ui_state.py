"""The state of the backend and of all jobs as the panels show it. In the WindowManager: not saved, not undone."""

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

from ._protocol.reports import ProgressReport
from .i18n.translation import translate


def show_jobs() -> None:
    """Fill the list of jobs again."""
    from .jobs.controller import job_controller  # imports this module

    job_controller().ui.show_jobs()


class MotionBoothModel(bpy.types.PropertyGroup):
    """A base model of the backend, called `name`."""

    title: StringProperty()
    frames: IntProperty()
    width: IntProperty()
    height: IntProperty()
    fps: FloatProperty()
    frame_step: IntProperty(default=1)


class MotionBoothLicense(bpy.types.PropertyGroup):
    """The license of a model, called `name`."""

    page: StringProperty()


class MotionBoothPublished(bpy.types.PropertyGroup):
    """A model that the backend can fetch, called `name`."""

    title: StringProperty()
    here: BoolProperty()
    size: StringProperty(description="For people, or empty")
    licenses: CollectionProperty(type=MotionBoothLicense)
    doing: StringProperty(description="The action that runs, or empty")
    stage: StringProperty()
    factor: FloatProperty(min=0, max=1)
    outcome: StringProperty(description="How the last action ended, or empty")
    failed: BoolProperty()


class MotionBoothTrained(bpy.types.PropertyGroup):
    """A subject that was trained on the backend, called `name`."""

    token: StringProperty()
    class_word: StringProperty()
    model: StringProperty()
    weights: StringProperty()
    picture: StringProperty(description="The file of a picture of it, or empty")


class MotionBoothJob(bpy.types.PropertyGroup):
    """A row of the job list; the job store has the rest. `name` is the job's title."""

    job: StringProperty()
    model: StringProperty()
    kind: StringProperty()
    state: StringProperty()
    stage: StringProperty()
    note: StringProperty(description="More about the stage, or empty")
    factor: FloatProperty(min=0, max=1)
    counted: BoolProperty(description="Whether the number of the stage's steps is known")
    seconds_left: FloatProperty(default=-1, description="Negative: unknown")
    error: StringProperty()
    scene: StringProperty()
    blend: StringProperty()
    here: BoolProperty(description="Whether it belongs to a shot of the open .blend")
    awaits: StringProperty(description="The subjects that must be trained first")
    picture: StringProperty(description="The file of the latest preview, or empty")
    masks: StringProperty(description="The file of a picture of the training masks, or empty")
    doubts: StringProperty(description="The file with the doubts about these masks, or empty")

    def show_report(self, report: ProgressReport) -> None:
        self.stage, self.counted = report.stage, report.steps > 0
        self.note = translate(report.note) if report.note else ""
        self.factor = min(1.0, report.step / report.steps) if report.steps else 0.0
        self.seconds_left = -1 if report.seconds_left is None else report.seconds_left


class MotionBoothState(bpy.types.PropertyGroup):
    connection: EnumProperty(
        items=[
            ("NONE", "No backend", ""),
            ("STARTING", "Starting", ""),
            ("CONNECTING", "Connecting", ""),
            ("CONNECTED", "Connected", ""),
            ("DISCONNECTED", "Not reachable", ""),
            ("OFFLINE", "Blender's online access is off", ""),
        ]
    )
    connection_text: StringProperty(description="The backend's name, or why there is no connection")
    install_stage: StringProperty(description="The stage of the backend's installation, or empty")
    install_factor: FloatProperty(min=0, max=1)
    notice: StringProperty(description="The message in the status bar, or empty")
    notice_is_error: BoolProperty()
    models: CollectionProperty(type=MotionBoothModel)
    trained: CollectionProperty(type=MotionBoothTrained)
    is_admin: BoolProperty()
    published: CollectionProperty(type=MotionBoothPublished)
    active_published: IntProperty(min=0)
    jobs: CollectionProperty(type=MotionBoothJob)
    active_job: IntProperty(min=0)
    all_files: BoolProperty(
        name="Jobs of All Files",
        description="Also list the jobs of other .blend files",
        update=lambda _, __: show_jobs(),
    )


def state() -> MotionBoothState:
    return bpy.context.window_manager.motionbooth
