"""The extension at work: one connection, the ledger of jobs, and a timer that carries news into Blender's data.

The timer never waits, stops after BUDGET_SECONDS of news, and places at most one result a tick. Nothing here keeps a
reference to Blender's data from one tick to the next: undo and file loading make them invalid.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
from msgspec.structs import replace

from .. import __package__ as base_package
from .. import ui_update
from .._protocol.connection import Connection
from .._protocol.errors import InvalidInput, MotionBoothError
from .._protocol.jobs import Blob, GenerateSpec, JobState
from .._protocol.messages import Progress, SubjectInfo
from ..files import (
    TRAINING_PICTURES,
    clip_folder,
    former_folder,
    trained_picture,
    training_doubts,
    training_picture,
    unsaved_clips,
)
from ..i18n.translation import told
from ..local_backend.install import Installation, Plan, installed_command
from ..local_backend.process import LocalBackend
from ..preferences import preferences
from ..takeover import home_of, in_use, take_over
from ..timeline import clips, colors, takes
from ..timeline.take_motion import report_path
from ..user_data import data_folder, environment_folder
from .events import (
    Cancel,
    Changed,
    Fetch,
    Fetched,
    Film,
    Follow,
    Forget,
    Linked,
    Look,
    Lost,
    News,
    Pictured,
    Refused,
    Train,
)
from .job_store import Ledger, Order, Record, TrainOrder

if TYPE_CHECKING:
    from .connection_threads import Background

TICK_SECONDS = 0.1
BUDGET_SECONDS = 0.002  # of the main thread, for news in one tick
_WATCH_SECONDS = 1.0  # how often files and processes are looked at
_NOTICE_SECONDS = 12.0
_RELEASE = "{}.{}".format(*bpy.app.version)
_LOOPBACK = ("tcp://127.", "tcp://localhost:", "tcp://[::1]:")


class Session:
    """All that lives as long as the extension is enabled. `data`: the user's data folder, see user_data.py; `home`: the
    local backend's, None for the usual one.
    """

    def __init__(self, data: Path, home: Path | None = None) -> None:
        self.data = data
        self.folder = folder = data / "blender"
        self.ledger = Ledger(folder / "jobs")
        self.local = LocalBackend(home or home_of(data, _RELEASE))
        self.background: Background | None = None
        self.screen = ui_update.Screen(self.ledger, folder)
        self._source: tuple[Any, ...] | None = None
        self._watched_at = float("-inf")
        self._due: deque[str] = deque()  # jobs whose result has still to be given to their shot
        self._received: set[str] = set()  # jobs whose result the open .blend has, which may not be saved yet
        self._awaited: set[str] = set()  # jobs whose clip is being fetched, subjects' pictures by their sha256
        self.installation: Installation | None = None
        self._notice_until = 0.0
        self._sweep()

    # The connection

    @property
    def connection_file(self) -> Path:
        chosen = preferences().connection_file
        return Path(bpy.path.abspath(chosen)) if chosen else self.local.connection_file

    @property
    def backend(self) -> str:
        """The public key by which the backend in use is known, "" without one."""
        return self.background.connection.server_public if self.background else ""

    def watch(self) -> None:
        """Connect, where there is a connection file that is not in use yet; part where it is gone."""
        if (failure := self.local.failure()) is not None:
            self.tell(failure, is_error=True)
        path = self.connection_file
        written = _written_at(path)
        source = (path, written, bpy.app.online_access, self.local.starting)
        if source == self._source:
            return
        self._source = source
        self._part()
        if written is not None:
            self._connect(path)
        elif preferences().connection_file:
            self.screen.show_link("LOST", f"There is no connection file at {path}; import it again, or clear its path.")
        else:
            self.screen.show_link("STARTING" if self.local.starting else "NONE", "")

    def _connect(self, path: Path) -> None:
        try:
            connection = Connection.read(path)
        except MotionBoothError as error:
            self.screen.show_link("LOST", str(error))
            return
        if not connection.address.startswith(_LOOPBACK) and not bpy.app.online_access:
            self.screen.show_link(
                "LOST",
                "The backend is on another machine and Blender's online access is off: Preferences > System > Network.",
            )
            return
        from ..turntable import background_render  # sockets are loaded with the first connection, not with Blender
        from . import connection_threads

        previews = Path(bpy.app.tempdir) / "motionbooth"
        renderer = background_render.renderer(bpy.app.binary_path, system_python=not bpy.app.python_args)
        self.background = connection_threads.Background(connection, previews, renderer).start()
        self.screen.show_link("CONNECTING", connection.address)
        for record in self.ledger.records.values():
            if record.backend == connection.server_public and not record.ended:
                self._send(record)

    def _part(self) -> None:
        if self.background is not None:
            self.background.stop(seconds=0)  # the main thread does not wait for it
            self.background = None
            self._awaited.clear()

    # The installation of a backend

    def install(self, plan: Plan, version: str) -> None:
        self.installation = Installation(plan, version).start()

    def _hear_installation(self) -> None:
        """Show how far it is; start the backend when it is there."""
        installation = self.installation
        if installation is None:
            return
        if not installation.ended:
            self.screen.show_installation(installation.stage, installation.factor)
            return
        self.installation = None
        self.screen.show_installation("", 0.0)
        command = installed_command(environment_folder())
        if installation.error or command is None:
            self.tell(installation.error, is_error=not installation.canceled)
            return
        self.tell("The backend is installed, and starts.")
        self.local.start(command)

    # What operators ask for

    def submit(self, scene: bpy.types.Scene, order: Order, title: str, awaits: dict[str, str] | None = None) -> Record:
        """Send a new job of this scene's shot, at once or when the jobs are done that train its subjects (`awaits`, by
        the subjects' names); never waits itself. Raises InvalidInput where there is no backend to send it to.
        """
        return self._begin(order, title, takes.shot_id(scene), scene.name, bpy.data.filepath, awaits or {})

    def again(self, record: Record) -> None:
        """The same once more, as a new job of the same shot, which need not be open."""
        self._begin(record.order, record.title, record.shot, record.scene, record.blend, record.awaits)

    def training_of(self, scene: bpy.types.Scene, subject: bpy.types.PropertyGroup) -> Record | None:
        """The job under way that trains this subject, for the shot's model."""
        shot = scene.motionbooth
        wanted = (subject.name, subject.token, subject.class_word, shot.model)
        for record in self.ledger.records.values():
            order = record.order
            if record.ended or record.shot != shot.uid or not isinstance(order, TrainOrder):
                continue
            if (order.name, order.token, order.class_word, order.model) == wanted:
                return record
        return None

    def _begin(self, order: Order, title: str, shot: str, scene: str, blend: str, awaits: dict[str, str]) -> Record:
        if self.background is None:
            raise InvalidInput("There is no backend: start the local one, or connect to another machine.")
        record = Record(
            id=uuid.uuid4().hex,
            order=order,
            title=title,
            created=time.time(),
            backend=self.backend,
            shot=shot,
            scene=scene,
            blend=blend,
            state=JobState.WAITING if awaits else JobState.SENDING,
            awaits=awaits,
        )
        self.ledger.put(record)
        self._send(record)
        self.screen.show_jobs(chosen=record.id)
        self._release()
        return record

    def cancel(self, job: str) -> None:
        record = self.ledger.records[job]
        is_ours = self.background is not None and record.backend == self.backend
        if record.state == JobState.WAITING or (
            record.state == JobState.SENDING and not is_ours
        ):  # nobody has heard of it yet
            self._change(record, Changed(job, JobState.CANCELED, 0, "", []))
        elif self.background is not None and is_ours:
            record.canceling = True
            self.ledger.put(record)
            self.background.order(Cancel(job))
        else:
            self.tell(f'"{record.title}" is on a backend that is not connected; connect to it first.', is_error=True)

    def forget(self, job: str) -> None:
        """Take an ended job off the list, and its files off the backend."""
        record = self.ledger.records[job]
        if self.background is not None and record.backend == self.backend:
            self.background.order(Forget(job))
        self.ledger.forget(job)
        self.screen.show_jobs()
        self._release()

    def place(self, job: str) -> None:
        """Give the shot the job's result, once it is here."""
        record = self.ledger.records[job]
        if record.kind == "generate" and not Path(record.clip or "-").is_file():
            self._fetch_clip(record)
        elif job not in self._due:
            self._due.append(job)

    def adopt(self, record: Record, scene: bpy.types.Scene) -> None:
        """Have a job of another file belong to this scene's shot."""
        record.shot, record.scene, record.blend = takes.shot_id(scene), scene.name, bpy.data.filepath
        record.placed = False
        self.ledger.put(record)
        self.screen.show_jobs()

    def tell(self, sentence: str, is_error: bool = False) -> None:
        """In the status bar, for a while."""
        self.screen.show_notice(told(sentence), is_error)
        self._notice_until = time.monotonic() + _NOTICE_SECONDS

    def _release(self) -> None:
        """Send the clips whose subjects are trained by now; those whose training ended otherwise are given up."""
        for record in list(self.ledger.records.values()):
            if record.state != JobState.WAITING:
                continue
            assert isinstance(record.order, GenerateSpec)
            trainings = {name: self.ledger.records.get(job) for name, job in record.awaits.items()}
            lost = next((name for name, job in trainings.items() if job is None or _is_lost(job)), None)
            if lost is not None:
                error = f'Subject "{lost}" was not trained; train it, then generate again.'
                self._change(record, Changed(record.id, JobState.FAILED, 0, error, []))
            elif all(training is not None and training.state == JobState.DONE for training in trainings.values()):
                record.order = _with_weights(record.order, trainings)
                record.state = JobState.SENDING
                self.ledger.put(record)
                self.screen.show_job(record)
                if record.backend == self.backend:
                    self._send(record)

    def _send(self, record: Record) -> None:
        if self.background is None or record.state == JobState.WAITING:
            return
        if record.state != JobState.SENDING:
            self.background.order(Follow(record.id, record.last_seq))
        elif isinstance(record.order, TrainOrder):
            self.background.order(Train(record.id, record.order, self.folder / "training" / record.id))
        else:
            self.background.order(Film(record.id, record.order))
        if record.canceling:
            self.background.order(Cancel(record.id))

    # The timer

    def tick(self) -> float:
        """What the timer does; the seconds until the next time."""
        ends = time.perf_counter() + BUDGET_SECONDS
        if time.monotonic() - self._watched_at > _WATCH_SECONDS:
            self._watched_at = time.monotonic()
            self.watch()
            if ui_update.can_edit():
                for scene in bpy.data.scenes:
                    colors.update_color_spaces(scene)
            if time.monotonic() > self._notice_until:
                self.screen.show_notice("", False)
        self._hear_installation()
        if self.background is not None:
            for news in self.background.news():
                self._heed(news)
                if time.perf_counter() > ends:
                    break
        if self._due and time.perf_counter() < ends and ui_update.can_edit():
            self._settle(self._due.popleft())
        if time.perf_counter() < ends and ui_update.can_edit():
            self.screen.show_large()
        self.screen.redraw()
        return TICK_SECONDS

    def _heed(self, news: News) -> None:
        match news:
            case Linked():
                self.screen.show_backend(news)
                self._collect()
                self._release()
                self._fetch_pictures(news.subjects)
            case Lost(reason):
                self.screen.show_link("LOST", reason)
            case Changed(job) if (record := self.ledger.records.get(job)) is not None:
                self._change(record, news)
            case Progress(job=job, report=report):
                self.screen.show_progress(job, report)
            case Pictured(job, path):
                self.screen.show_picture(job, path)
            case Fetched(job, role, path) if (record := self.ledger.records.get(job)) is not None:
                self._fetched(record, role, path)
            case Fetched():
                self.screen.show_fetched()
            case Refused():
                self._refused(news)

    def _change(self, record: Record, news: Changed) -> None:
        if record.ended:
            return
        record.state, record.error, record.results = news.state, news.error, news.results
        record.last_seq = max(record.last_seq, news.last_seq)
        self.ledger.put(record)
        self.screen.show_job(record)
        if record.state == JobState.DONE:
            title = record.title
            self.tell(f'"{title}" is trained.' if record.kind == "train" else f'"{title}" is filmed.')
            self._finish(record)
        elif record.state == JobState.FAILED:
            self.tell(f'"{record.title}" failed: {record.error}', is_error=True)
        if record.kind == "train" and record.ended:
            self._release()

    def _finish(self, record: Record) -> None:
        """A job is done: get what it made to the shot, if its .blend is open; else that waits until it is."""
        scene = takes.scene_of(record)
        if record.placed or record.id in self._received or scene is None or not self._has_result(record):
            return
        if takes.index_of(scene, record.id) is not None:  # placed, and saved by a Blender that then crashed
            self._received.add(record.id)
            return
        self.place(record.id)
        if record.kind == "train" and self.background is not None:
            for role in TRAINING_PICTURES:
                if (blob := record.result(role)) is not None:
                    self.background.order(Fetch(record.id, blob, training_picture(self.folder, record.id, role)))
            if (doubts := record.result("doubts")) is not None:
                self.background.order(Fetch(record.id, doubts, training_doubts(self.folder, record.id)))
            self.background.order(Look())

    def _has_result(self, record: Record) -> bool:
        """Whether it is on this machine, or can be fetched now."""
        return record.kind == "train" or Path(record.clip or "-").is_file() or record.backend == self.backend

    def _collect(self) -> None:
        """Finish what was done while its .blend was not open, or its backend not there."""
        self._mend()
        for record in self.ledger.records.values():
            if record.state == JobState.DONE:
                self._finish(record)

    def _fetch_clip(self, record: Record) -> None:
        clip = record.result("clip")
        if clip is None or self.background is None or record.backend != self.backend:
            self.tell(f'The clip of "{record.title}" is on a backend that is not connected.', is_error=True)
            return
        if record.id in self._awaited:
            return
        self._awaited.add(record.id)
        name = f"{bpy.path.clean_name(record.title)}_{record.id[:8]}.mp4"
        path = clip_folder(preferences().clip_folder, bpy.data.filepath) / name
        report = record.result("report")
        if report is not None:  # first: with the clip there, the take is placed
            self.background.order(Fetch(record.id, report, report_path(path)))
        self.background.order(Fetch(record.id, clip, path))

    def _fetch_pictures(self, subjects: list[SubjectInfo]) -> None:
        """Of trained subjects, as far as they are not here yet."""
        assert self.background is not None
        for subject in subjects:
            if not subject.picture or not subject.picture_size or subject.picture in self._awaited:
                continue
            path = trained_picture(self.folder, subject.picture)
            if not path.is_file():
                self._awaited.add(subject.picture)
                picture = Blob("samples", subject.picture, subject.picture_size)
                self.background.order(Fetch("", picture, path))

    def _fetched(self, record: Record, role: str, path: Path) -> None:
        if role == "clip":
            self._awaited.discard(record.id)
            record.clip = str(path)
            self.ledger.put(record)
            self._due.append(record.id)
        self.screen.show_job(record)

    def _refused(self, news: Refused) -> None:
        if isinstance(news.order, Fetch) and not news.order.job:
            return  # a picture in a list: it is tried again with the next connection
        self._awaited.discard(news.order.job)
        record = self.ledger.records.get(news.order.job)
        if record is not None and isinstance(news.order, Film | Train):
            record.state, record.error = JobState.FAILED, news.reason
            self.ledger.put(record)
            self.screen.show_job(record)
            self._release()
        self.tell(news.reason, is_error=True)

    def _settle(self, job: str) -> None:
        """Give a shot what its job made, as one step of undo."""
        record = self.ledger.records.get(job)
        scene = takes.scene_of(record) if record is not None else None
        if record is None or scene is None:
            return
        clip, folder = Path(record.clip), clip_folder(preferences().clip_folder, bpy.data.filepath)
        if record.clip and clip.parent == unsaved_clips() != folder and clip.is_file():
            with contextlib.suppress(OSError):  # it stays where it is
                record.clip = str(clips.copy_clip(clip, folder))
        try:
            done = takes.place_result(scene, record)
        except MotionBoothError as error:
            self.tell(str(error), is_error=True)
            return
        self._received.add(job)
        self.tell(done)
        ui_update.push_undo(done)

    # Files that are opened and saved, see file_handlers.py

    def opened(self) -> None:
        """Another .blend: its jobs are shown, and what ended meanwhile, or was not saved, is given to it."""
        self._due.clear()
        self._received.clear()
        self.screen.show_all()
        self._collect()

    def saved(self) -> None:
        """A job remembers where its shot and its clip lie now, and that the shot has what it made: it was kept, or its
        user has taken it away again.
        """
        where = {take.job_id: clips.clip_of(take) for _, take in clips.all_takes()}
        for record in self.ledger.records.values():
            scene = takes.scene_of(record)
            if scene is None:
                continue
            before = (record.blend, record.scene, record.clip, record.placed)
            record.blend, record.scene = bpy.data.filepath, scene.name
            record.placed = record.placed or record.id in self._received
            if (clip := where.get(record.id)) is not None and clip.is_file():
                record.clip = str(clip)
            if before != (record.blend, record.scene, record.clip, record.placed):
                self.ledger.put(record)
                self.screen.show_job(record)

    def _mend(self) -> None:
        """Find clips that are not where they should be; fetch those that are nowhere any more."""
        for job in clips.relink_missing(self._places_of):
            record = self.ledger.records.get(job)
            if record is not None and record.backend == self.backend and record.result("clip") is not None:
                record.clip = ""
                self._fetch_clip(record)

    def _places_of(self, take: bpy.types.PropertyGroup) -> list[Path]:
        """Where a take's clip may be, if not where it should be."""
        name = clips.clip_of(take).name
        record = self.ledger.records.get(take.job_id)
        places = [clip_folder(preferences().clip_folder, bpy.data.filepath) / name, unsaved_clips() / name]
        return [Path(record.clip), *places] if record is not None and record.clip else places

    def _sweep(self) -> None:
        """Take away the clips of once unsaved files that are with their .blend now. Not before Blender has ended: its
        undo steps show the old ones.
        """
        for record in self.ledger.records.values():
            clip, old = Path(record.clip), unsaved_clips() / Path(record.clip).name
            if record.clip and clip != old and clip.is_file() and old.is_file():
                report_path(old).unlink(missing_ok=True)
                shutil.rmtree(old.with_suffix(""), ignore_errors=True)
                old.unlink()

    def close(self) -> None:
        if self.installation is not None:
            self.installation.cancel()
        if self.background is not None:
            self.background.stop()


def _is_lost(training: Record) -> bool:
    """Whether it ended without a trained subject."""
    return training.ended and training.result("subject") is None


def _with_weights(spec: GenerateSpec, trainings: Mapping[str, Record | None]) -> GenerateSpec:
    """The spec with the subjects that these jobs have trained."""
    weights = {
        name: blob.sha256
        for name, training in trainings.items()
        if training is not None and (blob := training.result("subject")) is not None
    }
    tracks = [replace(track, weights=weights.get(track.name, track.weights)) for track in spec.shot.subjects]
    return replace(spec, shot=replace(spec.shot, subjects=tracks))


def _written_at(path: Path) -> int | None:
    """When a file was last written, in nanoseconds; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


_session: Session | None = None


def session() -> Session:
    """The one of this Blender; begun at its first use."""
    global _session
    if _session is None:
        _session = _begin()
    return _session


def is_begun() -> bool:
    return _session is not None


def _begin() -> Session:
    """With what earlier versions kept in the extension's own folder."""
    data, former = data_folder(), former_folder()
    try:
        done = take_over(former, data, _RELEASE)
    except OSError as error:
        done = (
            f"Your MotionBooth files are still in {former}: {error}. Start Blender again to have them moved to {data}."
        )
    begun = Session(data, former / "backend" if in_use(former / "backend") else None)
    begun.screen.show_all()
    chosen = Path(preferences().connection_file)
    if chosen.is_relative_to(former) and not chosen.exists():
        preferences().connection_file = str(data / "blender" / chosen.relative_to(former))
        bpy.context.preferences.is_dirty = True
    if done:
        print(f"MotionBooth: {done}")
        begun.tell(done)
    return begun


def _tick() -> float:
    return session().tick()


def register() -> None:
    # In the background a script holds the main thread: it waits for a backend by itself (filming.py).
    enabled = bpy.context.preferences.addons.get(base_package)  # None where a script registers without enabling
    if not bpy.app.background and enabled is not None and enabled.preferences.connect_at_start:
        start()


def start() -> None:
    """Look for the backend, and hear from it from now on."""
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=TICK_SECONDS, persistent=True)


def unregister() -> None:
    global _session
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    if _session is not None:
        _session.close()
        with contextlib.suppress(AttributeError):  # Blender is ending, and its window manager has gone before us
            _session.screen.clear()
        _session = None
