"""The extension's timer: carries events of the backend into Blender's data, and results into their shots.

The timer never waits, stops after BUDGET_SECONDS of events, and places at most one result a tick. Nothing here keeps a
reference to Blender's data from one tick to the next: undo and file loading make them invalid.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import bpy

from .. import __package__ as base_package
from .._protocol.errors import InvalidInput, MotionBoothError
from .._protocol.jobs import Blob, JobState
from .._protocol.messages import Progress, SubjectInfo
from .._protocol.text import Text
from ..faults import for_a_person
from ..files import (
    TRAINING_PICTURES,
    clip_folder,
    former_folder,
    trained_picture,
    training_result,
    unsaved_clips,
)
from ..i18n.translation import translate
from ..job_store import GuideRender, JobRecord, JobRequest, JobStore, StyleFile, TrainRequest
from ..local_backend.process import LocalBackend, is_home_in_use
from ..migration import home_of, migrate
from ..preferences import preferences
from ..timeline import clips, colors, takes
from ..timeline.take_motion import report_path
from ..ui_state import state
from ..user_data import data_folder
from . import ui_update
from .backend_watcher import BackendWatcher
from .events import (
    Connected,
    Disconnected,
    Event,
    Fetch,
    Fetched,
    ListPublished,
    ManageModel,
    PreviewSaved,
    PublishedListed,
    Refresh,
    Refused,
)
from .job_client import JobClient
from .old_files import remove_old_guides, remove_old_trainings

TICK_SECONDS = 0.1
BUDGET_SECONDS = 0.002  # of the main thread, for events in one tick
AFTER_ERROR_SECONDS = 5.0  # between two ticks
_WATCH_SECONDS = 1.0  # between two looks at files and processes
_RELEASE = "{}.{}".format(*bpy.app.version)


class JobController:
    """Everything that lives as long as the extension is enabled.

    data: the user's data folder, see user_data.py.
    home: the local backend's folder, None for the default.
    """

    def __init__(self, data: Path, home: Path | None = None) -> None:
        self.data = data
        self.folder = folder = data / "blender"
        self.store = JobStore(folder / "jobs")
        self.ui = ui_update.UiUpdater(self.store, folder)
        self.jobs = JobClient(self.store, folder / "training", self._job_changed)
        self.backend = BackendWatcher(self.jobs, LocalBackend(home or home_of(data, _RELEASE)), self.ui)
        self._watched_at = float("-inf")
        self._to_place: deque[str] = deque()  # jobs whose result is on this machine and not yet in their shot
        self._placed: set[str] = set()  # jobs whose result is in the open .blend, which may not be saved yet
        self._remove_copied_clips()
        remove_old_guides(folder / "guides", self.store.records.values())
        remove_old_trainings(folder / "training", self.store.records.values())

    # What operators request

    def submit(
        self,
        scene: bpy.types.Scene,
        request: JobRequest,
        title: str,
        awaits: dict[str, str] | None = None,
        styles: Sequence[StyleFile] = (),
        guide: GuideRender | None = None,
    ) -> JobRecord:
        """Send a new job for this scene's shot, see JobClient.submit. Raises InvalidInput without a connection."""
        where = takes.shot_id(scene), scene.name, bpy.data.filepath
        record = self.jobs.submit(request, title, awaits, styles, guide, *where)
        self.ui.show_jobs(chosen=record.id)
        return record

    def retry(self, record: JobRecord) -> None:
        """Send the same request as a new job of the same shot, which need not be open."""
        self.ui.show_jobs(chosen=self.jobs.retry(record).id)

    def remove(self, record: JobRecord) -> None:
        """Remove an ended job from the list and from the backend."""
        self.jobs.remove(record)
        self.ui.show_jobs()

    def training_of(self, scene: bpy.types.Scene, subject: bpy.types.PropertyGroup) -> JobRecord | None:
        """The unfinished job that trains this subject for the shot's model."""
        shot = scene.motionbooth
        wanted = (subject.name, subject.token, subject.class_word, shot.model)
        for record in self.store.records.values():
            request = record.request
            if record.ended or record.shot != shot.uid or not isinstance(request, TrainRequest):
                continue
            if (request.name, request.token, request.class_word, request.model) == wanted:
                return record
        return None

    def place(self, record: JobRecord) -> None:
        """Put the job's result into its shot; a clip and its master are fetched first.

        Raises InvalidInput if it is out of reach.
        """
        lacks_master = record.lacks_master and self.jobs.can_fetch_clip(record)
        if record.kind == "generate" and (lacks_master or not record.has_clip):
            name = f"{bpy.path.clean_name(record.title)}_{record.id[:8]}.mp4"
            self.jobs.fetch_clip(record, current_clip_folder() / name)
        elif record.id not in self._to_place:
            self._to_place.append(record.id)

    def adopt(self, record: JobRecord, scene: bpy.types.Scene) -> None:
        """Assign a job of another file to this scene's shot."""
        record.shot, record.scene, record.blend = takes.shot_id(scene), scene.name, bpy.data.filepath
        record.placed = False
        self.store.put(record)
        self.ui.show_jobs()

    def manage_model(self, name: str, action: str, license_accepted: bool = False) -> None:
        """Begin an action on a published model of the backend. Raises InvalidInput without a connection."""
        if self.jobs.threads is None:
            raise InvalidInput("There is no backend. Start the local backend or connect to a remote one.")
        self.jobs.threads.send(ManageModel(name, action, license_accepted))

    # The timer

    def tick(self) -> float:
        """One call of the timer; returns the seconds until the next."""
        ends = time.perf_counter() + BUDGET_SECONDS
        if time.monotonic() - self._watched_at > _WATCH_SECONDS:
            self._watched_at = time.monotonic()
            self.backend.watch()
            if ui_update.can_edit():
                for scene in clips.own_scenes():
                    colors.update_color_spaces(scene)
            self.ui.expire_notice()
            if any(model.doing for model in state().published) and self.jobs.threads is not None:
                self.jobs.threads.send(ListPublished())
        self.backend.follow_installation()
        for event in self.jobs.events():
            self._handle_event(event)
            if time.perf_counter() > ends:
                break
        if self._to_place and time.perf_counter() < ends and ui_update.can_edit():
            self._place_result(self._to_place.popleft())
        if time.perf_counter() < ends and ui_update.can_edit():
            self.ui.show_large()
        self.ui.redraw()
        return TICK_SECONDS

    def _handle_event(self, event: Event) -> None:
        match event:
            case Connected():
                self.ui.show_backend(event)
                self._place_finished()
                self._fetch_pictures(event.subjects)
                if event.is_admin and self.jobs.threads is not None:
                    self.jobs.threads.send(ListPublished())
            case PublishedListed(models):
                self.ui.show_published(models)
            case Disconnected(error):
                self.ui.show_connection("DISCONNECTED", error.text)
            case Progress(job=job, report=report):
                self.ui.show_progress(job, report)
            case PreviewSaved(job, path):
                self.ui.show_preview(job, path)
            case Fetched(job, role) if (record := self.store.records.get(job)) is not None:
                if role == "clip":
                    self._to_place.append(job)
                self.ui.show_job(record)
            case Fetched():
                self.ui.show_fetched()
            case Refused(Fetch(job="")):
                pass  # a picture in a list: the next connection tries again
            case Refused(_, error):
                self.ui.show_notice(error.text, is_error=True)

    def _job_changed(self, record: JobRecord) -> None:
        self.ui.show_job(record)
        if record.state == JobState.DONE:
            done = '"{job}" is trained.' if record.kind == "train" else '"{job}" is generated.'
            self.ui.show_notice(Text.of(done, job=record.title))
            self._place_if_open(record)
        elif record.state == JobState.FAILED:
            self.ui.show_notice(
                Text.of('"{job}" failed: {reason}', job=record.title, reason=record.error or ""), is_error=True
            )

    def _place_finished(self) -> None:
        """Place what finished while its .blend was not open, or its backend not connected."""
        self._find_clips()
        for record in self.store.records.values():
            if record.state == JobState.DONE:
                self._place_if_open(record)

    def _place_if_open(self, record: JobRecord) -> None:
        """Place a result that its shot has not received, if its .blend is open and the result can be reached."""
        scene = takes.scene_of(record)
        if record.placed or record.id in self._placed or scene is None:
            return
        if record.kind == "generate" and not record.has_clip and not self.jobs.can_fetch_clip(record):
            return
        if takes.index_of(scene, record.id) is not None:  # placed, and saved by a Blender that then crashed
            self._placed.add(record.id)
            return
        self.place(record)
        if record.kind == "train":
            self._fetch_training_files(record)

    def _fetch_training_files(self, record: JobRecord) -> None:
        for role in (*TRAINING_PICTURES, "doubts"):
            if (blob := record.result(role)) is not None:
                self.jobs.fetch(record.id, blob, training_result(self.folder, record.id, role))
        if self.jobs.threads is not None:
            self.jobs.threads.send(Refresh())

    def _fetch_pictures(self, subjects: list[SubjectInfo]) -> None:
        """Fetch the pictures of trained subjects that are not on this machine yet."""
        for subject in subjects:
            if subject.picture and subject.picture_size:
                path = trained_picture(self.folder, subject.picture)
                if not path.is_file():
                    self.jobs.fetch("", Blob("samples", subject.picture, subject.picture_size), path)

    def _place_result(self, job: str) -> None:
        """Give a shot the result of its job, as one undo step."""
        record = self.store.records.get(job)
        scene = takes.scene_of(record) if record is not None else None
        if record is None or scene is None:
            return
        clip, folder = Path(record.clip), current_clip_folder()
        if record.clip and clip.parent == unsaved_clips() != folder and clip.is_file():
            with contextlib.suppress(OSError):  # the clip stays in its folder
                record.clip = str(clips.copy_clip(clip, folder))
        try:
            done = takes.place_result(scene, record)
        except MotionBoothError as error:
            self.ui.show_notice(error.text, is_error=True)
            return
        self._placed.add(job)
        self.ui.show_notice(done)
        ui_update.push_undo(translate(done))

    # Files that are opened and saved, see file_handlers.py

    def opened(self) -> None:
        """Another .blend was opened: show its jobs, and place the results that it lacks."""
        self._to_place.clear()
        self._placed.clear()
        for record in self.store.read_new(lambda record: takes.scene_of(record) is not None):
            self.jobs.resume(record)
        self.ui.show_all()
        self._place_finished()

    def saved(self) -> None:
        """The open .blend was saved: keep its path, its clips' paths and the results that it received.

        A result whose take was deleted before counts as received.
        """
        where = {take.job_id: clips.clip_of(take) for _, take in clips.all_takes()}
        for record in self.store.records.values():
            scene = takes.scene_of(record)
            if scene is None:
                continue
            before = (record.blend, record.scene, record.clip, record.placed)
            record.blend, record.scene = bpy.data.filepath, scene.name
            record.placed = record.placed or record.id in self._placed
            if (clip := where.get(record.id)) is not None and clip.is_file():
                record.clip = str(clip)
            if before != (record.blend, record.scene, record.clip, record.placed):
                self.store.put(record)
                self.ui.show_job(record)

    def _find_clips(self) -> None:
        """Find clips that are not at their path; fetch those that are missing."""
        for job in clips.relink_missing(self._clip_candidates):
            record = self.store.records.get(job)
            if record is not None and self.jobs.can_fetch_clip(record):
                record.clip = ""
                self.place(record)

    def _clip_candidates(self, take: bpy.types.PropertyGroup) -> list[Path]:
        """Where a take's clip may be if it is not at its path."""
        name = clips.clip_of(take).name
        record = self.store.records.get(take.job_id)
        candidates = [current_clip_folder() / name, unsaved_clips() / name]
        return [Path(record.clip), *candidates] if record is not None and record.clip else candidates

    def _remove_copied_clips(self) -> None:
        """Remove the clips of once unsaved files that were copied to their .blend.

        Not before the next start of Blender: undo steps show the old ones.
        """
        for record in self.store.records.values():
            clip, old = Path(record.clip), unsaved_clips() / Path(record.clip).name
            if record.clip and clip.is_file() and old.is_file() and clip.resolve() != old.resolve():
                report_path(old).unlink(missing_ok=True)
                shutil.rmtree(old.with_suffix(""), ignore_errors=True)
                for file in clips.movies(old):
                    file.unlink(missing_ok=True)

    def close(self) -> None:
        self.backend.close()
        self.jobs.disconnect()


def current_clip_folder() -> Path:
    """The folder for new clips of the open .blend."""
    return clip_folder(preferences().clip_folder, bpy.data.filepath)


_controller: JobController | None = None


def job_controller() -> JobController:
    """The controller of this Blender, created at its first use."""
    global _controller
    if _controller is None:
        _controller = _create()
    return _controller


def is_created() -> bool:
    return _controller is not None


def _create() -> JobController:
    """Create it, after moving the files that earlier versions kept in the extension's own folder."""
    data, former = data_folder(), former_folder()
    try:
        done = migrate(former, data, _RELEASE)
    except OSError as error:
        done = Text.of(
            "Your MotionBooth files are still in {former}: {reason}. Start Blender again to have them moved to {data}.",
            former=former,
            reason=error,
            data=data,
        )
    created = JobController(data, former / "backend" if is_home_in_use(former / "backend") else None)
    created.ui.show_all()
    chosen = Path(preferences().connection_file)
    if chosen.is_relative_to(former) and not chosen.exists():
        preferences().connection_file = str(data / "blender" / chosen.relative_to(former))
        bpy.context.preferences.is_dirty = True
    if done:
        print(f"MotionBooth: {done}")
        created.ui.show_notice(done)
    return created


def _tick() -> float:
    """Blender removes a timer that raises, and then all jobs would seem to stand still."""
    try:
        return job_controller().tick()
    except Exception as error:
        text = for_a_person(error).text
        if _controller is not None:
            _controller.ui.show_notice(text, is_error=True)
        else:  # its folder cannot be used
            state().notice, state().notice_is_error = translate(text), True
        return AFTER_ERROR_SECONDS


def register() -> None:
    # In background mode a script holds the main thread, and waits for the backend on its own (generate_shots.py).
    enabled = bpy.context.preferences.addons.get(base_package)  # None if a script registers without enabling
    if not bpy.app.background and enabled is not None and enabled.preferences.connect_at_start:
        start()


def start() -> None:
    """Connect to the backend, and handle its events from now on."""
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=TICK_SECONDS, persistent=True)


def unregister() -> None:
    global _controller
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    if _controller is not None:
        _controller.close()
        with contextlib.suppress(AttributeError):  # Blender is closing, and its window manager is already gone
            _controller.ui.clear()
        _controller = None
