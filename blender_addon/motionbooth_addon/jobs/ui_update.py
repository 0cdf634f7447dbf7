"""Keeps the panels up to date: the WindowManager's copy of jobs and backend, the notice, redraws, undo steps."""

from __future__ import annotations

import os
import time
from pathlib import Path

import bpy

from .. import thumbnails
from .._protocol.jobs import JobState
from .._protocol.messages import PublishedModel
from .._protocol.reports import ProgressReport
from .._protocol.text import Text
from ..files import TRAINING_PICTURES, trained_picture, training_result
from ..i18n.translation import translate
from ..job_store import JobRecord, JobStore
from ..timeline import takes
from ..ui_state import MotionBoothJob, state
from .events import Connected

_NOTICE_SECONDS = 12.0
# While an operator of one of these groups runs, the user is dragging something or in the middle of a stroke, or the
# file has a temporary scene of ours: strips and undo steps wait until it ends. Not all groups, since add-ons have
# operators that never end.
_GROUPS = (
    "transform sequencer sequence sculpt sculpt_curves paint gpencil grease_pencil particle mesh curve curves pose uv"
)
MODAL = tuple(f"{group.upper()}_OT_" for group in [*_GROUPS.split(), "motionbooth"])


def can_edit() -> bool:
    """Whether Blender's data may be changed now: it is not rendering, and no operator is in the middle of something."""
    if bpy.app.is_job_running("RENDER"):
        return False
    return not any(
        operator.bl_idname.startswith(MODAL)
        for window in bpy.context.window_manager.windows
        for operator in window.modal_operators
    )


def push_undo(message: str) -> None:
    """Make the change that the timer has just made an undo step.

    Not in `temp_override`, see `image_sequence`: Blender gives a timer the context of its first window.
    """
    if not bpy.app.background and bpy.ops.ed.undo_push.poll():
        bpy.ops.ed.undo_push(message=f"MotionBooth: {message}")


class UiUpdater:
    """Copies the state of jobs and backend into `ui_state`, and redraws the panels. `folder`: the extension's files."""

    def __init__(self, store: JobStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._rows: dict[str, int] = {}  # of the jobs that the list shows
        self._reports: dict[str, ProgressReport] = {}  # by job, as the list shows them
        self._connection: tuple[str, str | Text] = ("NONE", "")
        self._backend: Connected | None = None
        self._published: list[PublishedModel] = []
        self._notice_until = 0.0
        self._changed = self._status_changed = False

    def show_all(self) -> None:
        """Show everything again: a file was opened, which may have brought a new window manager."""
        self.show_connection(*self._connection)
        if self._backend is not None and self._connection[0] == "CONNECTED":
            self.show_backend(self._backend)
            self.show_published(self._published)
        self.show_jobs()

    def clear(self) -> None:
        for rows in (state().jobs, state().models, state().trained, state().published):
            rows.clear()

    def show_connection(self, connection: str, text: str | Text = "") -> None:
        """`text`: the backend's name, or why there is no connection."""
        self._connection = (connection, text)
        if connection != "CONNECTED":
            self._forget_progress()
        shown = state()
        translated = translate(text)
        if (shown.connection, shown.connection_text) != (connection, translated):
            shown.connection, shown.connection_text = connection, translated
            self._changed = self._status_changed = True

    def _forget_progress(self) -> None:
        """Hide the progress of jobs: it is out of date once their backend is out of reach."""
        for row in state().jobs:
            if row.state in {JobState.QUEUED, JobState.RUNNING} and row.stage:
                self._set_report(row, None)

    def show_backend(self, backend: Connected) -> None:
        self._backend = backend
        self.show_connection("CONNECTED", backend.server)
        models, trained = state().models, state().trained
        state().is_admin = backend.is_admin
        models.clear()
        for model in backend.models:
            row = models.add()
            row.name, row.title, row.frames = model.name, model.title or model.name, model.frames
            row.width, row.height, row.fps, row.frame_step = model.width, model.height, model.fps, model.frame_step
        trained.clear()
        for subject in backend.subjects:
            row = trained.add()
            row.name, row.token, row.class_word = subject.name, subject.token, subject.class_word
            row.model, row.weights = subject.model, subject.weights
            row.picture = str(trained_picture(self._folder, subject.picture)) if subject.picture else ""
        self._changed = True

    def show_published(self, models: list[PublishedModel]) -> None:
        self._published = models
        rows = state().published
        rows.clear()
        for model in models:
            row = rows.add()
            row.name, row.title, row.here = model.name, model.title, model.here
            row.size = _size(model.size) if model.size else ""
            row.doing, row.failed = model.doing, model.failed
            row.outcome = translate(model.outcome) if model.outcome is not None else ""
            report = model.progress
            row.stage = report.stage if report is not None else ""
            row.factor = report.step / report.steps if report is not None and report.steps else 0.0
            for license in model.licenses:
                shown = row.licenses.add()
                shown.name, shown.page = license.name, license.page
        self._changed = True

    def show_fetched(self) -> None:
        """The file of a picture has arrived; a row has its path already."""
        self._changed = True

    def show_installation(self, stage: str, factor: float) -> None:
        shown = state()
        if shown.install_stage != stage or abs(shown.install_factor - factor) > 0.002:
            shown.install_stage, shown.install_factor = stage, factor
            self._changed = True

    def show_notice(self, text: str | Text, is_error: bool = False) -> None:
        """Show a text in the status bar for _NOTICE_SECONDS."""
        self._notice_until = time.monotonic() + _NOTICE_SECONDS
        self._set_notice(translate(text), is_error)

    def expire_notice(self) -> None:
        if time.monotonic() > self._notice_until:
            self._set_notice("", False)

    def _set_notice(self, text: str, is_error: bool) -> None:
        shown = state()
        if shown.notice != text:
            shown.notice, shown.notice_is_error = text, is_error
            self._changed = self._status_changed = True

    def show_jobs(self, chosen: str = "") -> None:
        """Fill the list, newest first. `chosen`: the job to select, "" for the one that is selected now."""
        shown = state()
        if not chosen and shown.active_job < len(shown.jobs):
            chosen = shown.jobs[shown.active_job].job
        previews = {row.job: row.picture for row in shown.jobs}
        shown.jobs.clear()
        self._rows = {}
        for record in reversed(self._store.records.values()):
            here = takes.scene_of(record) is not None
            if here or shown.all_files:
                self._rows[record.id] = len(self._rows)
                row = shown.jobs.add()
                row.name, row.job, row.kind, row.here = record.title, record.id, record.kind, here
                row.model, row.picture = record.request.model, previews.get(record.id, "")
                self._set_report(row, self._reports.get(record.id))
                self.show_job(record)
        shown.active_job = self._rows.get(chosen, 0)
        self._changed = True

    def show_job(self, record: JobRecord) -> None:
        row = self._row(record.id)
        if row is None:
            return
        row.state, row.error = record.state, translate(record.error or "")
        if record.kind == "train" and record.state == JobState.DONE:
            row.picture, row.masks = (str(training_result(self._folder, record.id, r)) for r in TRAINING_PICTURES)
            row.doubts = str(training_result(self._folder, record.id, "doubts"))
        row.scene, row.blend = record.scene, os.path.basename(record.blend)
        row.awaits = ", ".join(record.awaits) if record.state == JobState.WAITING else ""
        if record.state != JobState.RUNNING:
            self._set_report(row, None)
        self._changed = self._status_changed = True

    def show_progress(self, job: str, report: ProgressReport) -> None:
        row = self._row(job)
        if row is not None and (row.state == JobState.SENDING or self._connection[0] == "CONNECTED"):
            self._set_report(row, report)

    def _set_report(self, row: MotionBoothJob, report: ProgressReport | None) -> None:
        if report is None:
            self._reports.pop(row.job, None)
        else:
            self._reports[row.job] = report
        row.show_report(report or ProgressReport("", 0, 0))
        self._changed = self._status_changed = True

    def show_large(self) -> None:
        """Load the pictures that a panel wants to show large."""
        self._changed |= thumbnails.load_pending()

    def show_preview(self, job: str, path: Path) -> None:
        row = self._row(job)
        if row is not None:
            row.picture = str(path)
            self._changed = True

    def redraw(self) -> None:
        """Redraw the panels and the status bar if something has changed since the last call."""
        if self._changed and not bpy.app.background:
            for window in bpy.context.window_manager.windows:
                _redraw_panels(window)
                if self._status_changed and not window.modal_operators:
                    with bpy.context.temp_override(window=window, workspace=window.workspace):
                        window.workspace.status_text_set_internal(None)  # redraws the status bar
        self._changed = self._status_changed = False

    def _row(self, job: str) -> MotionBoothJob | None:
        index = self._rows.get(job)
        return None if index is None else state().jobs[index]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _redraw_panels(window: bpy.types.Window) -> None:
    for area in window.screen.areas:
        if area.type in {"VIEW_3D", "SEQUENCE_EDITOR"}:
            for region in area.regions:
                if region.type == "UI":
                    region.tag_redraw()
