"""Operators that start jobs, and those on a job of the list."""

# mypy: disable-error-code="valid-type"

import uuid
from collections.abc import Sequence
from pathlib import Path

import bpy
from bpy.props import FloatProperty, StringProperty

from .. import thumbnails
from .._protocol.errors import InvalidInput, NotFound
from .._protocol.jobs import GenerateSpec, JobState
from .._protocol.text import Text
from ..capture import shot_cache
from ..guide.request import guide_render
from ..job_store import GuideRender, JobRecord
from ..jobs.controller import job_controller
from ..jobs.specs import generate_specs, missing_for_training, model_of, restore_settings, style_files, train_request
from ..timeline import takes
from ..turntable.pictures import needs_training
from ..ui_state import state
from .base import ReportsErrors, refuse
from .subjects import has_camera, has_subject


def has_backend(cls: type[bpy.types.Operator]) -> bool:
    """For `poll`: a backend is known. If it is unreachable for a while, jobs wait for it."""
    if len(state().models) and job_controller().jobs.threads is not None:
        return True
    reasons = {
        "STARTING": "The local backend is starting. Please wait.",
        "CONNECTING": "Connecting to the backend. Please wait.",
        "DISCONNECTED": state().connection_text,
        "OFFLINE": state().connection_text,
    }
    return refuse(cls, reasons.get(state().connection, "Start the local backend or connect to a remote one."))


def untrained(scene: bpy.types.Scene) -> list[bpy.types.PropertyGroup]:
    """The subjects that must be trained before the shot can be generated and are not in training yet."""
    subjects = [subject for subject in scene.motionbooth.subjects if needs_training(subject)]
    return [subject for subject in subjects if job_controller().training_of(scene, subject) is None]


def last_guide(scene: bpy.types.Scene) -> GuideRender | None:
    """The latest guide that was rendered for the shot."""
    records = reversed(job_controller().store.records.values())
    shot = scene.motionbooth.uid
    guides = (record.guide for record in records if record.shot == shot and record.guide is not None)
    return next((guide for guide in guides if guide.folder), None)


class MOTIONBOOTH_OT_train_subject(ReportsErrors, bpy.types.Operator):
    """Train this subject on renders of its training object or on images, while you continue to work"""

    bl_idname = "motionbooth.train_subject"
    bl_label = "Train Subject"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not has_subject(cls, context):
            return False
        shot = context.scene.motionbooth
        if missing := missing_for_training(shot.subjects[shot.active_subject]):
            return refuse(cls, missing)
        return has_backend(cls)

    def act(self, context: bpy.types.Context) -> None:
        scene = context.scene
        subject = scene.motionbooth.subjects[scene.motionbooth.active_subject]
        if job_controller().training_of(scene, subject) is not None:
            raise InvalidInput(
                '"{subject}" is already being trained; cancel that job to train it again.', subject=subject.name
            )
        training = train_request(scene, subject, _new_folder(), model_of(scene).height)
        job_controller().submit(scene, training, subject.name)
        if is_connected():
            self.inform('Training "{subject}"; see Jobs.', subject=subject.name)
        else:
            text = 'The backend is unreachable. "{subject}" is sent once it is connected.'
            self.inform(text, "WARNING", subject=subject.name)


def is_connected() -> bool:
    return state().connection == "CONNECTED"


def _new_folder() -> Path:
    """A new folder for the training images of a job."""
    return job_controller().folder / "training" / uuid.uuid4().hex


class MOTIONBOOTH_OT_generate(ReportsErrors, bpy.types.Operator):
    """Generate a clip of this shot and add it to the sequencer. New subjects are trained first"""

    bl_idname = "motionbooth.generate"
    bl_label = "Generate"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        shot = context.scene.motionbooth
        if not shot.subjects:
            return refuse(cls, "Add a subject first.")
        if not has_backend(cls) or not has_camera(cls, context.scene):
            return False
        for subject in untrained(context.scene):
            if missing_for_training(subject):
                return refuse(
                    cls,
                    Text.of(
                        'Subject "{subject}" is not trained. Give it a class and a training object or images, or '
                        "clear its token to use the model's own knowledge.",
                        subject=subject.name,
                    ),
                )
        return True

    def act(self, context: bpy.types.Context) -> None:
        scene = context.scene
        controller = job_controller()
        specs, styles, model = generate_specs(scene), style_files(scene), model_of(scene)
        guide = guide_render(scene, specs[0].shot, (model.width, model.height), controller.folder / "guides")
        trainings = {
            subject.name: train_request(scene, subject, _new_folder(), model.height) for subject in untrained(scene)
        }
        for name, training in trainings.items():
            controller.submit(scene, training, name)
        under_way = {subject.name: controller.training_of(scene, subject) for subject in scene.motionbooth.subjects}
        awaits = {name: record.id for name, record in under_way.items() if record is not None}
        sent = [
            controller.submit(scene, spec, title, awaits, styles, guide)
            for spec, title in zip(specs, titles(specs), strict=True)
        ]
        controller.ui.show_jobs(chosen=sent[0].id)  # the first to have a preview
        self._report_sent(specs[0].shot.name, len(specs), list(awaits))

    def _report_sent(self, shot: str, count: int, awaits: list[str]) -> None:
        takes = Text.of('1 take of "{shot}"' if count == 1 else '{count} takes of "{shot}"', shot=shot, count=count)
        names = ", ".join(awaits)
        if not is_connected():
            text = "The backend is unreachable. {takes} will be sent once it is connected."
            self.inform(text, "WARNING", takes=takes)
        elif awaits:
            self.inform("Waiting for the training of {subjects} before {takes}; see Jobs.", subjects=names, takes=takes)
        else:
            self.inform("Generating {takes}; see Jobs.", takes=takes)


class MOTIONBOOTH_OT_render_guide_again(ReportsErrors, bpy.types.Operator):
    """Render the guide again for the next clip. Needed only after a change of a file or of an image's pixels"""

    bl_idname = "motionbooth.render_guide_again"
    bl_label = "Render Guide Again"

    def act(self, context: bpy.types.Context) -> None:
        shot_cache.forget_state(context.scene)
        self.inform("The next clip has a new guide.")


def titles(specs: Sequence[GenerateSpec]) -> list[str]:
    """The titles of the jobs of one or more takes."""
    count = len(specs)
    return [
        spec.shot.name if count == 1 else f"{spec.shot.name} {number} of {count}"
        for number, spec in enumerate(specs, 1)
    ]


class _JobOperator(ReportsErrors):
    """Base of operators on one job: the one with the given id, or the active one of the list."""

    job: StringProperty(name="Job", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if state().active_job < len(state().jobs):
            return True
        return refuse(cls, "There is no job yet. Train a subject or generate a clip first.")

    def act(self, context: bpy.types.Context) -> None:
        job = self.job or state().jobs[state().active_job].job
        record = job_controller().store.records.get(job)
        if record is None:
            raise InvalidInput("This job is no longer in the list.")
        self.act_on(context, record)

    def act_on(self, context: bpy.types.Context, record: JobRecord) -> None:
        raise NotImplementedError


class MOTIONBOOTH_OT_cancel_job(_JobOperator, bpy.types.Operator):
    """Cancel this job and discard its progress"""

    bl_idname = "motionbooth.cancel_job"
    bl_label = "Cancel Job"

    def act_on(self, context: bpy.types.Context, record: JobRecord) -> None:
        if record.ended:
            raise InvalidInput('"{job}" has already ended.', job=record.title)
        job_controller().jobs.cancel(record)


class MOTIONBOOTH_OT_retry_job(_JobOperator, bpy.types.Operator):
    """Run this job again as a new job"""

    bl_idname = "motionbooth.retry_job"
    bl_label = "Run Again"

    def act_on(self, context: bpy.types.Context, record: JobRecord) -> None:
        job_controller().retry(record)


class MOTIONBOOTH_OT_remove_job(_JobOperator, bpy.types.Operator):
    """Remove a finished job from the list and the backend. A downloaded clip is kept"""

    bl_idname = "motionbooth.remove_job"
    bl_label = "Remove Job"

    def act_on(self, context: bpy.types.Context, record: JobRecord) -> None:
        if not record.ended:
            raise InvalidInput('"{job}" is not finished; cancel it first.', job=record.title)
        job_controller().remove(record)


class MOTIONBOOTH_OT_place_result(_JobOperator, bpy.types.Operator):
    """Add the result of this job to the scene: a clip to the timeline, or trained weights to the subject"""

    bl_idname = "motionbooth.place_result"
    bl_label = "Add to Timeline"

    def act_on(self, context: bpy.types.Context, record: JobRecord) -> None:
        if record.state != JobState.DONE:
            raise InvalidInput('"{job}" is not done yet.', job=record.title)
        if takes.scene_of(record) is None:
            job_controller().adopt(record, context.scene)
        job_controller().place(record)


class MOTIONBOOTH_OT_restore_job_settings(_JobOperator, bpy.types.Operator):
    """Restore the prompt, model, seed and other settings of this job"""

    bl_idname = "motionbooth.restore_job_settings"
    bl_label = "Restore Settings"
    bl_options = {"REGISTER", "UNDO"}

    def act_on(self, context: bpy.types.Context, record: JobRecord) -> None:
        if not isinstance(record.request, GenerateSpec):
            raise InvalidInput("A training job has no clip settings; choose a generated clip.")
        if missing := restore_settings(context.scene, record.request):
            self.inform(missing, "WARNING")


class MOTIONBOOTH_OT_view_image(ReportsErrors, bpy.types.Operator):
    """View this image as large as the window allows"""

    bl_idname = "motionbooth.view_image"
    bl_label = "View Full Size"

    path: StringProperty(name="Picture", options={"HIDDEN"})
    shape: FloatProperty(name="Shape", options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        self._frames = thumbnails.load_large("viewed", self.path, self.shape)
        if not self._frames:
            return self.fail(NotFound("The image no longer exists."))
        # Squares side by side, in nine tenths of the window.
        side = 0.9 * min(context.window.width / len(self._frames), context.window.height)
        scale = context.preferences.system.ui_scale
        self._units = side / (20 * scale)
        return context.window_manager.invoke_popup(self, width=int(side * len(self._frames) / scale))

    def draw(self, context: bpy.types.Context) -> None:
        row = self.layout.row(align=True)
        for frame in self._frames:
            row.template_icon(icon_value=frame, scale=self._units)

    def act(self, context: bpy.types.Context) -> None:
        """The popup was closed."""


CLASSES = (
    MOTIONBOOTH_OT_train_subject,
    MOTIONBOOTH_OT_generate,
    MOTIONBOOTH_OT_render_guide_again,
    MOTIONBOOTH_OT_cancel_job,
    MOTIONBOOTH_OT_retry_job,
    MOTIONBOOTH_OT_remove_job,
    MOTIONBOOTH_OT_place_result,
    MOTIONBOOTH_OT_restore_job_settings,
    MOTIONBOOTH_OT_view_image,
)
