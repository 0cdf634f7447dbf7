"""The job list, the details of the active job, and the status bar."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import bpy
import msgspec

from .._protocol.jobs import TERMINAL_STATES, JobState, MaskDoubt
from .._protocol.text import Text
from ..i18n.translation import translate
from ..thumbnails import large_icons
from ..ui_state import MotionBoothJob, state
from .base import InSequencer, InView, panel_scale, sentence, time_left

_SYMBOLS = {
    JobState.WAITING: "SORTTIME",
    JobState.SENDING: "EXPORT",
    JobState.QUEUED: "TIME",
    JobState.RUNNING: "PLAY",
    JobState.DONE: "CHECKMARK",
    JobState.FAILED: "ERROR",
    JobState.CANCELED: "CANCEL",
}


UNFINISHED = frozenset(JobState) - TERMINAL_STATES
MAX_SHOWN = 3  # unfinished jobs below the Generate button


class MOTIONBOOTH_UL_jobs(bpy.types.UIList):
    def draw_item(
        self, context: Any, layout: Any, data: Any, item: Any, icon: int, owner: Any, active: str, index: int
    ) -> None:
        row = layout.row(align=True)
        row.label(text="", icon="MOD_ARMATURE" if item.kind == "train" else "FILE_MOVIE")
        row.label(text=item.name, icon=_SYMBOLS[item.state], translate=False)
        if item.stage:
            row.progress(factor=item.factor, text=item.stage if not item.counted else f"{item.factor:.0%}")
        else:
            row.label(text=translate(state_of(item)), translate=False)
        if item.state in UNFINISHED:
            row.operator("motionbooth.cancel_job", text="", icon="X", emboss=False).job = item.job
        elif item.state in {JobState.FAILED, JobState.CANCELED}:
            row.operator("motionbooth.retry_job", text="", icon="FILE_REFRESH", emboss=False).job = item.job


def state_of(job: MotionBoothJob) -> str:
    """A short description of a job's state, which is not known while the backend is unreachable."""
    if job.state in {JobState.SENDING, JobState.QUEUED, JobState.RUNNING} and state().connection != "CONNECTED":
        return "Not sent yet" if job.state == JobState.SENDING else "Backend unreachable"
    return job.state.capitalize()


def draw_unfinished(layout: bpy.types.UILayout) -> None:
    """The unfinished jobs of this shot, the oldest first."""
    jobs = [job for job in reversed(state().jobs) if job.here and job.state in UNFINISHED]
    for job in jobs[:MAX_SHOWN]:
        row = layout.row(align=True)
        if job.stage:
            left = time_left(job.seconds_left)
            words = f"{job.name}: {translate(job.stage)}" + (f", {left}" if left else "")
            row.progress(factor=job.factor, text=words)
        else:
            row.label(text=f"{job.name}: {translate(state_of(job))}", icon=_SYMBOLS[job.state], translate=False)
        row.operator("motionbooth.cancel_job", text="", icon="X").job = job.job
    if len(jobs) > MAX_SHOWN:
        layout.label(text=translate("and {count} more", count=len(jobs) - MAX_SHOWN), translate=False)


def draw_jobs(layout: bpy.types.UILayout, region: bpy.types.Region) -> None:
    shown = state()
    if not shown.jobs:
        text = "No jobs yet. Train a subject or generate a clip to start one."
        sentence(layout, text, region, "INFO")
        layout.prop(shown, "all_files")
        return
    layout.template_list("MOTIONBOOTH_UL_jobs", "", shown, "jobs", shown, "active_job", rows=3)
    layout.prop(shown, "all_files")
    if shown.active_job < len(shown.jobs):
        _draw_job(layout, shown.jobs[shown.active_job], region)


@lru_cache(maxsize=16)
def mask_doubts(path: str) -> tuple[Text, ...]:
    """Warnings about the masks of a training job, from its file, which never changes; empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            doubts = msgspec.json.decode(file.read(), type=list[MaskDoubt])
    except (OSError, msgspec.DecodeError):
        return ()
    return tuple(
        Text.of("The mask of {picture} may be wrong: {reason}.", picture=doubt.picture, reason=reason)
        for doubt in doubts
        for reason in doubt.reasons
    )


def _draw_job(layout: bpy.types.UILayout, job: MotionBoothJob, region: bpy.types.Region) -> None:
    box = layout.box()
    if not job.here:
        file = job.blend or translate("Unsaved file")
        box.label(text=f"{file}: {job.scene}", icon="FILE_BLEND", translate=False)
    if job.stage:
        box.progress(factor=job.factor, text=job.stage)
        if left := time_left(job.seconds_left):
            box.label(text=left, icon="TIME", translate=False)
        if job.note:
            sentence(box, job.note, region, "INFO")
    if job.awaits:
        sentence(box, Text.of("Waiting for the training of: {subjects}", subjects=job.awaits), region, "SORTTIME")
    elif job.state in UNFINISHED and state().connection != "CONNECTED":
        sentence(box, "The backend is unreachable. The job resumes when it is connected again.", region, "ERROR")
    if job.error:
        sentence(box, job.error, region, "ERROR")
    draw_picture(box, job.job, job.picture, region, frame_shape(job))
    if job.masks and os.path.isfile(job.masks):
        box.label(text="Training Images with Masks")
        draw_picture(box, f"{job.job} masks", job.masks, region)
    if job.doubts and os.path.isfile(job.doubts):
        for doubt in mask_doubts(job.doubts):
            sentence(box, doubt, region, "ERROR")
    row = box.row(align=True)
    if job.state in UNFINISHED:
        row.operator("motionbooth.cancel_job", text="Cancel", icon="X").job = job.job
    else:
        row.operator("motionbooth.retry_job", text="Run Again", icon="FILE_REFRESH").job = job.job
        row.operator("motionbooth.remove_job", text="Remove", icon="TRASH").job = job.job
    if job.kind == "generate":
        box.operator("motionbooth.restore_job_settings", icon="LOOP_BACK").job = job.job
    if job.state == JobState.DONE and job.here:
        is_clip = job.kind == "generate"
        place = box.operator(
            "motionbooth.place_result",
            text="Add to Timeline" if is_clip else "Use for Subject",
            icon="NLA_PUSHDOWN",
        )
        place.job = job.job
    elif job.state == JobState.DONE and job.kind == "generate":  # it belongs to another or an unsaved file
        box.operator("motionbooth.place_result", text="Add to This Scene", icon="NLA_PUSHDOWN").job = job.job


def frame_shape(job: MotionBoothJob) -> float:
    """Width / height of the frames side by side in a clip's preview; 0 for a single image."""
    model = state().models.get(job.model)
    return model.width / model.height if job.kind == "generate" and model is not None and model.height else 0.0


def draw_picture(
    layout: bpy.types.UILayout, place: str, path: str, region: bpy.types.Region, shape: float = 0.0
) -> None:
    """An image as wide as the panel (of several frames, the middle one), with a button to view all at full size."""
    frames = large_icons(place, path, shape)
    if not frames:
        return
    layout.template_icon(icon_value=frames[len(frames) // 2], scale=panel_scale(region))
    show = layout.operator("motionbooth.view_image", icon="FULLSCREEN_ENTER")
    show.path, show.shape = path, shape


class MOTIONBOOTH_PT_jobs(InView, bpy.types.Panel):
    bl_label = "Jobs"

    def draw(self, context: bpy.types.Context) -> None:
        draw_jobs(self.layout, context.region)


class MOTIONBOOTH_PT_sequencer_jobs(InSequencer, bpy.types.Panel):
    bl_label = "Jobs"

    def draw(self, context: bpy.types.Context) -> None:
        draw_jobs(self.layout, context.region)


def draw_status(self: bpy.types.Header, context: bpy.types.Context) -> None:
    """In the status bar: the running job or the lost connection, and the latest notice."""
    shown = state()
    running = next((job for job in shown.jobs if job.stage), None)
    cut_off = sum(job.state in {JobState.SENDING, JobState.QUEUED, JobState.RUNNING} for job in shown.jobs)
    if running is not None:
        row = self.layout.row()
        row.ui_units_x = 16
        left = time_left(running.seconds_left)
        words = f"{running.name}: {translate(running.stage)} {running.factor:.0%}"
        row.progress(factor=running.factor, text=f"{words}, {left}" if left else words)
    elif cut_off and shown.connection in {"DISCONNECTED", "OFFLINE", "NONE"}:
        row = self.layout.row()
        row.alert = True
        row.label(
            text=translate("Backend unreachable, jobs waiting: {count}", count=cut_off),
            icon="UNLINKED",
            translate=False,
        )
    if shown.notice:
        row = self.layout.row()
        row.alert = shown.notice_is_error
        row.label(text=shown.notice, icon="ERROR" if shown.notice_is_error else "INFO", translate=False)


CLASSES = (MOTIONBOOTH_UL_jobs, MOTIONBOOTH_PT_jobs, MOTIONBOOTH_PT_sequencer_jobs)
