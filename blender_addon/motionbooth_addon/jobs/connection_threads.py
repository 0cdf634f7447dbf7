"""The connection to a backend, in two threads, so that Blender never waits for a network. No bpy.

The job thread has a session for short requests: it submits, cancels and follows jobs. The transfer thread has a session
for long ones: it renders and uploads pictures, uploads styles and downloads results. Each thread owns its sockets. The
main thread sends typed commands and receives typed events.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from .._protocol import messages
from .._protocol.client import Client
from .._protocol.connection import Connection
from .._protocol.errors import Canceled, Damaged, ErrorReport, MotionBoothError, NotFound, OutOfSpace
from .._protocol.jobs import TERMINAL_STATES, Blob, Guide, JobState, Picture, Style, SubjectSpec
from .._protocol.limits import CHUNK_BYTES
from .._protocol.messages import Progress
from .._protocol.picture_files import caption_beside
from .._protocol.reports import PreviewReport, ProgressReport
from ..faults import for_a_person
from ..job_store import GuideRender
from ..turntable import background_render
from . import masters
from .events import (
    Cancel,
    Command,
    Connected,
    Disconnected,
    Event,
    Fetch,
    Fetched,
    Follow,
    Generate,
    ListPublished,
    ManageModel,
    PreviewSaved,
    PublishedListed,
    Refresh,
    Refused,
    Remove,
    StateChanged,
    Submitted,
    Train,
)

_LISTEN_SECONDS = 0.1  # the longest that a command waits
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0  # seconds between attempts to connect
_PATIENCE = 4.0  # seconds until a broken connection is reported; the threads never stop trying


class ConnectionThreads:
    """The two threads for one backend.

    scratch: a folder for previews.
    renderer: the command that renders training pictures, see `background_render.renderer`.
    """

    def __init__(self, connection: Connection, scratch: Path, renderer: list[str]) -> None:
        self.connection = connection
        self._scratch = scratch
        self._renderer = renderer
        self._stop = threading.Event()
        self._connected = threading.Event()
        self._requests: deque[Command] = deque()
        self._transfers: queue.SimpleQueue[Train | Generate | Fetch | None] = queue.SimpleQueue()  # None: stop
        self._lock = threading.Lock()  # for the next two
        self._in_transfer: set[str] = set()  # jobs of transfers that are queued or running
        self._dropped: set[str] = set()  # those of them that were canceled
        self._followed: dict[str, int] = {}  # job -> number of its last event
        self._events: deque[Event] = deque()
        self._latest: dict[tuple[type[Event], str], Event] = {}
        self._previews = itertools.count()
        self._threads = [
            threading.Thread(target=self._run_requests, name="MotionBooth jobs", daemon=True),
            threading.Thread(target=self._run_transfers, name="MotionBooth transfers", daemon=True),
        ]

    def start(self) -> ConnectionThreads:
        for thread in self._threads:
            thread.start()
        return self

    def stop(self, seconds: float = 3.0) -> None:
        """Drop the commands that were not carried out, waiting at most so long. Jobs continue on the backend."""
        self._stop.set()
        self._transfers.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def send(self, command: Command) -> None:
        """Never waits."""
        with self._lock:
            if isinstance(command, Cancel) and command.job in self._in_transfer:
                self._dropped.add(command.job)
            elif isinstance(command, Train | Fetch) or (isinstance(command, Generate) and command.has_files):
                self._in_transfer.add(command.job)
                self._transfers.put(command)
            else:
                self._requests.append(command)

    def events(self) -> Iterator[Event]:
        """The events since the last call, oldest first. Never waits; an event that is not consumed stays queued."""
        while self._events:
            yield self._events.popleft()
        for key in list(self._latest):
            latest = self._latest.pop(key, None)
            if latest is not None:
                yield latest

    # The job thread: one session that follows all jobs

    def _run_requests(self) -> None:
        client = self._client(self._handle_push)
        pause, session = _FIRST_PAUSE, 0
        try:
            while not self._stop.is_set():
                try:
                    client.connect()
                    if session != client.sessions:
                        self._begin_session(client)
                        session, pause = client.sessions, _FIRST_PAUSE
                    self._process_commands(client)
                    client.listen(_LISTEN_SECONDS)
                except Canceled:
                    return
                except Exception as error:  # a fault must not end the thread: all jobs would seem to stand still
                    self._connected.clear()
                    self._events.append(Disconnected(for_a_person(error)))
                    session = 0
                    self._cancel_unsent()
                    self._stop.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            client.close()

    def _client(self, on_push: Callable[[messages.AnyReply], None] | None = None) -> Client:
        return Client(self.connection, patience=_PATIENCE, stop=self._stop, name="Blender", on_push=on_push)

    def _begin_session(self, client: Client) -> None:
        self._refresh(client)
        for job, last_seq in list(self._followed.items()):
            self._attach(client, job, last_seq)
        self._connected.set()

    def _refresh(self, client: Client) -> None:
        welcome = client.connect()
        is_admin = welcome.role == "admin"
        self._events.append(Connected(welcome.server, welcome.models, client.subjects(), is_admin))

    def _process_commands(self, client: Client) -> None:
        """All queued commands. If the network breaks, the interrupted one stays first, and the error is raised."""
        while self._requests:
            command = self._requests[0]
            try:
                self._process(client, command)
            except Canceled:
                raise
            except Exception as error:
                if isinstance(error, MotionBoothError) and error.retryable:
                    raise
                self._events.append(Refused(command, for_a_person(error)))
            self._requests.popleft()

    def _cancel_unsent(self) -> None:
        """Drop each generation that was canceled before it could be sent."""
        waiting = list(self._requests)
        for cancel in waiting:
            unsent = next((other for other in waiting if isinstance(other, Generate) and other.job == cancel.job), None)
            if isinstance(cancel, Cancel) and unsent is not None:
                self._requests.remove(unsent)
                self._requests.remove(cancel)
                self._events.append(StateChanged(unsent.job, JobState.CANCELED))

    def _process(self, client: Client, command: Command) -> None:
        match command:
            case Generate(job, spec):  # without a style
                client.submit(job, spec)
                self._attach(client, job, 0)
            case Follow(job, after_seq):
                self._attach(client, job, after_seq)
            case Cancel(job):
                client.cancel(job)
            case Refresh():
                self._refresh(client)
            case ListPublished():
                self._events.append(PublishedListed(client.published()))
            case ManageModel(name, action, license_accepted):
                self._events.append(PublishedListed(client.manage_model(name, action, license_accepted)))
            case Remove(job):
                self._followed.pop(job, None)
                client.forget(job)

    def _attach(self, client: Client, job: str, last_seq: int) -> None:
        self._followed.setdefault(job, last_seq)
        try:
            snapshot = client.attach(job, last_seq)
        except NotFound:
            lost = NotFound("The backend no longer has this job; run it again.")
            self._change_state(job, JobState.FAILED, last_seq, lost.report, [])
            return
        now = snapshot.job
        self._change_state(job, now.state, snapshot.last_seq, now.error, now.results)

    def _handle_push(self, message: messages.AnyReply) -> None:
        match message:
            case Progress(job=job):
                self._latest[Progress, job] = message
            case messages.Event(job=job, seq=seq) if seq > self._followed.get(job, seq):
                self._change_state(job, message.state, seq, message.error, message.results)
            case messages.Models():
                self._requests.append(Refresh())
            case messages.Preview(job=job, report=preview):
                self._save_preview(job, preview)

    def _change_state(
        self, job: str, state: JobState, last_seq: int, error: ErrorReport | None, results: list[Blob]
    ) -> None:
        if state in TERMINAL_STATES:
            self._followed.pop(job, None)
        else:
            self._followed[job] = last_seq
        self._latest.pop((Progress, job), None)  # it belongs to the state before
        self._events.append(StateChanged(job, state, last_seq, error, results))

    def _save_preview(self, job: str, preview: PreviewReport) -> None:
        suffix = ".png" if preview.picture.startswith(b"\x89PNG") else ".jpg"
        path = self._scratch / f"{job}_{next(self._previews)}{suffix}"  # nothing that the backend chose
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            path.write_bytes(preview.picture)
        except OSError:  # a full disk costs only the preview
            return
        self._latest[PreviewSaved, job] = PreviewSaved(job, path)

    # The transfer thread: pictures and styles to the backend, results to files

    def _run_transfers(self) -> None:
        client = self._client()
        try:
            while (command := self._transfers.get()) is not None and not self._stop.is_set():
                self._transfer(client, command)
        except Canceled:
            return
        finally:
            client.close()

    def _transfer(self, client: Client, command: Train | Generate | Fetch) -> None:
        """Try until it is done, refused or canceled. Raises Canceled if the threads are stopped."""
        is_done = False
        try:
            while not self._try_transfer(client, command):
                self._stop.wait(_FIRST_PAUSE)
                while not self._connected.wait(_LISTEN_SECONDS):
                    self._check_canceled(command.job)
            is_done = True
        except Canceled:
            if command.job not in self._dropped:
                raise
            self._events.append(StateChanged(command.job, JobState.CANCELED))
        except Exception as error:
            self._events.append(Refused(command, for_a_person(error)))
        finally:
            with self._lock:
                self._in_transfer.discard(command.job)
                if is_done and command.job in self._dropped:  # canceled while it was being submitted
                    self._requests.append(Cancel(command.job))
                self._dropped.discard(command.job)

    def _try_transfer(self, client: Client, command: Train | Generate | Fetch) -> bool:
        """False if the network broke; the next attempt resumes."""
        try:
            match command:
                case Train():
                    self._send_training(client, command)
                case Generate():
                    self._send_generation(client, command)
                case Fetch():
                    self._fetch(client, command)
        except MotionBoothError as error:
            if not error.retryable or isinstance(error, OutOfSpace | Damaged):
                raise
            return False
        return True

    def _send_training(self, client: Client, train: Train) -> None:
        request = train.request
        files = [(Path(image), Path(mask) if mask else None) for image, mask in request.pictures]
        if request.render is not None:
            self._report(train.job, ProgressReport("rendering pictures", 0, 0))
            on_progress, is_canceled = partial(self._report, train.job), partial(self._is_canceled, train.job)
            files = background_render.render(self._renderer, request.render, train.folder, on_progress, is_canceled)
        sent = []
        for index, (image, mask) in enumerate(files):
            self._report(train.job, ProgressReport("uploading pictures", index, len(files)))
            digest = client.upload(image, lambda have, size: self._check_canceled(train.job))
            sent.append(Picture(digest, client.upload(mask) if mask else None, caption=caption_beside(image)))
        subject = SubjectSpec(name=request.name, token=request.token, class_word=request.class_word, pictures=sent)
        spec = request.spec(subject)
        self._check_canceled(train.job)
        client.submit(train.job, spec)
        self._events.append(Submitted(train.job, spec))
        self._requests.append(Follow(train.job))

    def _send_generation(self, client: Client, command: Generate) -> None:
        job, spec = command.job, command.spec
        if command.guide is not None:
            spec = replace(spec, guide=self._send_guide(client, command.guide, command))
        if command.styles:
            sent = [self._upload(client, job, Path(style.path), "uploading the style") for style in command.styles]
            strengths = [style.strength for style in command.styles]
            spec = replace(spec, styles=[Style(*pair) for pair in zip(sent, strengths, strict=True)])
        self._check_canceled(job)
        client.submit(job, spec)
        self._events.append(Submitted(job, spec))
        self._requests.append(Follow(job))

    def _send_guide(self, client: Client, wanted: GuideRender, command: Generate) -> Guide:
        """Render and upload the guide."""
        job, shot = command.job, command.spec.shot
        on_progress, is_canceled = partial(self._report, job), partial(self._is_canceled, job)
        on_progress(ProgressReport("rendering the guide", 0, 0))
        files = background_render.render_guide(self._renderer, wanted, shot, on_progress, is_canceled)
        if wanted.folder:
            self._latest[PreviewSaved, job] = PreviewSaved(job, files[0].with_name(background_render.PREVIEW))
        clip, *masks = (self._upload(client, job, file, "uploading the guide") for file in files)
        return Guide(clip, wanted.subject_strength, wanted.background_strength, masks[0] if masks else None)

    def _upload(self, client: Client, job: str, file: Path, stage: str) -> str:
        def on_bytes(have: int, size: int) -> None:
            chunks, total = have // CHUNK_BYTES, -(-size // CHUNK_BYTES)
            self._report(job, ProgressReport(stage, chunks, total))

        return client.upload(file, on_bytes)

    def _fetch(self, client: Client, command: Fetch) -> None:
        began, resumed_at = time.monotonic(), -1

        def on_bytes(have: int, size: int) -> None:
            nonlocal resumed_at
            resumed_at = have if resumed_at < 0 else resumed_at
            speed = (have - resumed_at) / max(time.monotonic() - began, 1e-3)
            left = (size - have) / speed if speed > 0 else None
            chunks, total = have // CHUNK_BYTES, -(-size // CHUNK_BYTES)
            self._report(command.job, ProgressReport("downloading", chunks, total, left))

        client.fetch(command.blob, command.path, on_bytes)
        if command.blob.role == "master" and command.path.suffix == masters.PACKED:
            masters.unpack(command.path)
        self._latest.pop((Progress, command.job), None)
        self._events.append(Fetched(command.job, command.blob.role, command.path))

    def _report(self, job: str, report: ProgressReport) -> None:
        self._check_canceled(job)
        self._latest[Progress, job] = Progress(job=job, report=report)

    def _check_canceled(self, job: str) -> None:
        """Raises Canceled if the job was canceled or the threads are stopped."""
        if self._is_canceled(job):
            raise Canceled("Canceled before it was sent.")

    def _is_canceled(self, job: str) -> bool:
        return self._stop.is_set() or job in self._dropped
