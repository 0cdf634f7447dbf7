"""All jobs with their progress, and the chosen one with its preview and what can be done with it."""

from __future__ import annotations

from typing import Any

import bpy

from ..translation import told
from ..window_state import MotionBoothJob, state
from .base import InSequencer, InView, time_left
from .shot import sentence
from .thumbnails import icon as thumbnail

_SYMBOLS = {
    "sending": "EXPORT",
    "queued": "TIME",
    "running": "PLAY",
    "done": "CHECKMARK",
    "failed": "ERROR",
    "canceled": "CANCEL",
}


class MOTIONBOOTH_UL_jobs(bpy.types.UIList):
    def draw_item(
        self,
        context: bpy.types.Context,
        layout: bpy.types.UILayout,
        data: Any,
        item: Any,
        icon: int,
        active_data: Any,
        active_property: str,
        index: int,
    ) -> None:
        row = layout.row(align=True)
        row.label(text="", icon="MOD_ARMATURE" if item.kind == "train" else "FILE_MOVIE")
        row.label(text=item.name, icon=_SYMBOLS[item.state], translate=False)
        if item.stage:
            row.progress(factor=item.factor, text=item.stage if not item.counted else f"{item.factor:.0%}")
        else:
            row.label(text=item.state.capitalize())
        if item.state in {"sending", "queued", "running"}:
            row.operator("motionbooth.cancel_job", text="", icon="X", emboss=False).job = item.job
        elif item.state in {"failed", "canceled"}:
            row.operator("motionbooth.retry_job", text="", icon="FILE_REFRESH", emboss=False).job = item.job


def draw_jobs(layout: bpy.types.UILayout, region: bpy.types.Region) -> None:
    shown = state()
    layout.template_list("MOTIONBOOTH_UL_jobs", "", shown, "jobs", shown, "active_job", rows=3)
    layout.prop(shown, "all_files")
    if shown.active_job < len(shown.jobs):
        _draw_job(layout, shown.jobs[shown.active_job], region)


def _draw_job(layout: bpy.types.UILayout, job: MotionBoothJob, region: bpy.types.Region) -> None:
    box = layout.box()
    if not job.here:
        file = job.blend or told("An unsaved file")
        box.label(text=f"{file}: {job.scene}", icon="FILE_BLEND", translate=False)
    if job.stage:
        box.progress(factor=job.factor, text=job.stage)
        if left := time_left(job.seconds_left):
            box.label(text=told(left), icon="TIME", translate=False)
    if job.error:
        sentence(box, job.error, region, "ERROR")
    if number := thumbnail(job.picture):
        box.template_icon(icon_value=number, scale=8)
    if number := thumbnail(job.masks):
        box.label(text="Learned from, with masks")
        box.template_icon(icon_value=number, scale=8)
    row = box.row(align=True)
    if job.state in {"sending", "queued", "running"}:
        row.operator("motionbooth.cancel_job", text="Cancel", icon="X").job = job.job
    else:
        row.operator("motionbooth.retry_job", text="Again", icon="FILE_REFRESH").job = job.job
        row.operator("motionbooth.forget_job", text="Forget", icon="TRASH").job = job.job
    if job.kind == "generate":
        box.operator("motionbooth.use_job_settings", icon="LOOP_BACK").job = job.job
    if job.state == "done" and job.here:
        filmed = job.kind == "generate"
        place = box.operator(
            "motionbooth.place_job",
            text="Place on Timeline" if filmed else "Use for the Subject",
            icon="NLA_PUSHDOWN",
        )
        place.job = job.job


class MOTIONBOOTH_PT_jobs(InView, bpy.types.Panel):
    bl_label = "Jobs"
    bl_idname = "MOTIONBOOTH_PT_jobs"

    def draw(self, context: bpy.types.Context) -> None:
        draw_jobs(self.layout, context.region)


class MOTIONBOOTH_PT_sequencer_jobs(InSequencer, bpy.types.Panel):
    bl_label = "Jobs"
    bl_idname = "MOTIONBOOTH_PT_sequencer_jobs"

    def draw(self, context: bpy.types.Context) -> None:
        draw_jobs(self.layout, context.region)


def draw_status(self: bpy.types.Header, context: bpy.types.Context) -> None:
    """In the status bar: the notice, and the job that runs."""
    shown = state()
    if shown.notice:
        row = self.layout.row()
        row.alert = shown.notice_is_error
        row.label(text=shown.notice, icon="ERROR" if shown.notice_is_error else "INFO", translate=False)
    running = next((job for job in shown.jobs if job.stage), None)
    if running is not None:
        row = self.layout.row()
        row.ui_units_x = 12
        row.progress(factor=running.factor, text=f"{running.name}: {told(running.stage)} {running.factor:.0%}")


CLASSES = (MOTIONBOOTH_UL_jobs, MOTIONBOOTH_PT_jobs, MOTIONBOOTH_PT_sequencer_jobs)
