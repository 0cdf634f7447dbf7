"""What is sent to the backend, and what can be done with a job of the list."""

# mypy: disable-error-code="valid-type"

import uuid

import bpy
from bpy.props import StringProperty

from .._protocol.errors import InvalidInput
from .._protocol.jobs import GenerateSpec
from ..ledger import Record
from ..orders import film_orders, train_order, use_again
from ..pictures import needs_training
from ..session import session
from ..translation import told
from ..window_state import state
from .base import SentenceForErrors, refuse
from .subjects import has_camera, has_subject


def is_linked(cls: type[bpy.types.Operator]) -> bool:
    """A backend has been reached; where it is lost for a while, jobs wait for it."""
    if len(state().models):
        return True
    reasons = {
        "STARTING": "The local backend is starting; wait a moment.",
        "CONNECTING": "Connecting to the backend; wait a moment.",
        "LOST": state().link_text,
    }
    return refuse(cls, reasons.get(state().link, "Start the local backend, or connect to another machine."))


def can_learn(cls: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
    """Whether the active subject has words, and something to learn it from."""
    shot = context.scene.motionbooth
    subject = shot.subjects[shot.active_subject]
    if not subject.class_word:
        return refuse(cls, "Give the subject a class first, the ordinary word for it: dog, toy, car.")
    if not subject.token:
        return refuse(cls, "Give the subject a token to train it; without one it is what the model knows by itself.")
    if subject.model_object is None and not subject.pictures:
        return refuse(cls, "Choose a 3-D object or a folder of pictures to learn the subject from.")
    return True


class MOTIONBOOTH_OT_train_subject(SentenceForErrors, bpy.types.Operator):
    """Teach the backend this subject, from renders of its 3-D object or from your pictures. Blender stays free"""

    bl_idname = "motionbooth.train_subject"
    bl_label = "Train Subject"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return has_subject(cls, context) and can_learn(cls, context) and is_linked(cls)

    def act(self, context: bpy.types.Context) -> None:
        scene = context.scene
        subject = scene.motionbooth.subjects[scene.motionbooth.active_subject]
        order = train_order(scene, subject, session().folder / "training" / uuid.uuid4().hex)
        session().submit(scene, order, subject.name)
        self.report({"INFO"}, told(f'"{subject.name}" is being trained; see Jobs.'))


class MOTIONBOOTH_OT_film(SentenceForErrors, bpy.types.Operator):
    """Send the shot to the backend: boxes, camera path and prompt. The clip lands in the sequencer when it is done"""

    bl_idname = "motionbooth.film"
    bl_label = "Film"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        shot = context.scene.motionbooth
        if not shot.subjects:
            return refuse(cls, "Add a subject first.")
        if not is_linked(cls) or not has_camera(cls, context):
            return False
        untrained = next((subject.name for subject in shot.subjects if needs_training(subject)), None)
        if untrained is not None:
            return refuse(cls, f'Train subject "{untrained}" first, or clear its token to use what the model knows.')
        return True

    def act(self, context: bpy.types.Context) -> None:
        orders = film_orders(context.scene)
        for number, order in enumerate(orders, 1):
            name = order.shot.name if len(orders) == 1 else f"{order.shot.name} {number} of {len(orders)}"
            session().submit(context.scene, order, name)
        name = orders[0].shot.name
        one, more = f'1 take of "{name}" sent; see Jobs.', f'{len(orders)} takes of "{name}" sent; see Jobs.'
        self.report({"INFO"}, told(one if len(orders) == 1 else more))


class _OfJob(SentenceForErrors):
    """An operator on one job: the one whose id it is given, or the active one of the list."""

    job: StringProperty(name="Job", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if state().active_job < len(state().jobs):
            return True
        return refuse(cls, "There is no job yet: train a subject or film a shot.")

    def act(self, context: bpy.types.Context) -> None:
        job = self.job or state().jobs[state().active_job].job
        record = session().ledger.records.get(job)
        if record is None:
            raise InvalidInput("This job is not on the list any more.")
        self.act_on(context, record)

    def act_on(self, context: bpy.types.Context, record: Record) -> None:
        raise NotImplementedError


class MOTIONBOOTH_OT_cancel_job(_OfJob, bpy.types.Operator):
    """Stop this job; what it did so far is given up"""

    bl_idname = "motionbooth.cancel_job"
    bl_label = "Cancel Job"

    def act_on(self, context: bpy.types.Context, record: Record) -> None:
        if record.ended:
            raise InvalidInput(f'"{record.title}" has ended already.')
        session().cancel(record.id)


class MOTIONBOOTH_OT_retry_job(_OfJob, bpy.types.Operator):
    """Send the same once more, as a new job"""

    bl_idname = "motionbooth.retry_job"
    bl_label = "Try Again"

    def act_on(self, context: bpy.types.Context, record: Record) -> None:
        session().again(record)


class MOTIONBOOTH_OT_forget_job(_OfJob, bpy.types.Operator):
    """Take an ended job off the list and off the backend; a clip that is here stays"""

    bl_idname = "motionbooth.forget_job"
    bl_label = "Forget Job"

    def act_on(self, context: bpy.types.Context, record: Record) -> None:
        if not record.ended:
            raise InvalidInput(f'"{record.title}" has not ended; cancel it first.')
        session().forget(record.id)


class MOTIONBOOTH_OT_place_job(_OfJob, bpy.types.Operator):
    """Put what the job made into the scene once more: its clip on the timeline, its training into the subject"""

    bl_idname = "motionbooth.place_job"
    bl_label = "Place on Timeline"

    def act_on(self, context: bpy.types.Context, record: Record) -> None:
        if record.state != "done":
            raise InvalidInput(f'"{record.title}" is not done yet.')
        session().place(record.id)


class MOTIONBOOTH_OT_use_job_settings(_OfJob, bpy.types.Operator):
    """Set prompt, model, seed, quality and switches of the scene as they were for this job"""

    bl_idname = "motionbooth.use_job_settings"
    bl_label = "Use These Settings Again"
    bl_options = {"REGISTER", "UNDO"}

    def act_on(self, context: bpy.types.Context, record: Record) -> None:
        if not isinstance(record.order, GenerateSpec):
            raise InvalidInput("A training has no settings of a film; choose a filmed job.")
        use_again(context.scene, record.order)


CLASSES = (
    MOTIONBOOTH_OT_train_subject,
    MOTIONBOOTH_OT_film,
    MOTIONBOOTH_OT_cancel_job,
    MOTIONBOOTH_OT_retry_job,
    MOTIONBOOTH_OT_forget_job,
    MOTIONBOOTH_OT_place_job,
    MOTIONBOOTH_OT_use_job_settings,
)
