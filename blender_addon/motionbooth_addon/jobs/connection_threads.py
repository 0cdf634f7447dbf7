"""The connection to a backend, in two threads, so that Blender never waits for a network. No bpy.

The one thread has a session for what is short: it submits, cancels and follows jobs. The other has a session for what
is long: it renders, sends and fetches pictures and clips, to files. Typed orders go in, typed news come out; sockets
belong to their thread alone.
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

from .._protocol import messages
from .._protocol.client import Client
from .._protocol.connection import Connection
from .._protocol.errors import Canceled, MotionBoothError, NotFound, OutOfSpace, is_disk_full
from .._protocol.jobs import TERMINAL_STATES, Blob, JobState, Picture, SubjectSpec
from .._protocol.limits import CHUNK_BYTES
from .._protocol.messages import Progress
from .._protocol.reports import PreviewReport, ProgressReport
from ..turntable import background_render
from .events import (
    AnyOrder,
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

_LISTEN_SECONDS = 0.1  # at most so long an order waits
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0  # seconds between attempts to connect
_PATIENCE = 4.0  # seconds until a broken connection is told; it is tried again for ever


class Background:
    """The threads for one backend. `scratch`: a folder for previews; `renderer`: see rendering.py."""

    def __init__(self, connection: Connection, scratch: Path, renderer: list[str]) -> None:
        self.connection = connection
        self._scratch = scratch
        self._renderer = renderer
        self._stop = threading.Event()
        self._linked = threading.Event()
        self._short: deque[AnyOrder] = deque()
        self._long: queue.Queue[Train | Fetch] = queue.Queue()
        self._carried: set[str] = set()  # jobs that the second thread has, or will have, in its hands
        self._dropped: set[str] = set()  # those of them that were canceled
        self._followed: dict[str, int] = {}  # job -> number of its last event that was heard
        self._news: deque[News] = deque()
        self._latest: dict[tuple[type[News], str], News] = {}
        self._previews = itertools.count()
        self._threads = [
            threading.Thread(target=self._run_short, name="MotionBooth session", daemon=True),
            threading.Thread(target=self._run_long, name="MotionBooth transfers", daemon=True),
        ]

    def start(self) -> Background:
        for thread in self._threads:
            thread.start()
        return self

    def stop(self, seconds: float = 3.0) -> None:
        """Jobs go on, on the backend. Orders that were not carried out are given up."""
        self._stop.set()
        for thread in self._threads:
            thread.join(seconds)

    def order(self, order: AnyOrder) -> None:
        """Never waits."""
        if isinstance(order, Train | Fetch):
            self._carried.add(order.job)
            self._long.put(order)
        else:
            self._short.append(order)

    def news(self) -> Iterator[News]:
        """What was heard since the last call, oldest first; never waits. What is not taken stays."""
        while self._news:
            yield self._news.popleft()
        for key in list(self._latest):
            latest = self._latest.pop(key, None)
            if latest is not None:
                yield latest

    # The first thread: one session that follows all jobs

    def _run_short(self) -> None:
        client = self._client(self._heard)
        pause, session = _FIRST_PAUSE, 0
        try:
            while not self._stop.is_set():
                try:
                    client.connect()
                    if session != client.sessions:
                        self._greet(client)
                        session, pause = client.sessions, _FIRST_PAUSE
                    self._obey(client)
                    client.listen(_LISTEN_SECONDS)
                except Canceled:
                    return
                except MotionBoothError as error:
                    self._linked.clear()
                    self._news.append(Lost(str(error)))
                    session = 0
                    self._withdraw()
                    self._stop.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            client.close()

    def _client(self, on_push: Callable[[messages.AnyReply], None] | None = None) -> Client:
        return Client(self.connection, patience=_PATIENCE, stop=self._stop, name="Blender", on_push=on_push)

    def _greet(self, client: Client) -> None:
        """In a new session: what the backend has, and all that is followed once more."""
        self._look(client)
        for job, last_seq in list(self._followed.items()):
            self._attach(client, job, last_seq)
        self._linked.set()

    def _look(self, client: Client) -> None:
        welcome = client.connect()
        self._news.append(Linked(welcome.server, welcome.models, client.subjects()))

    def _obey(self, client: Client) -> None:
        """All orders that wait. One that the network broke stays the first, and the error is raised."""
        while self._short:
            order = self._short[0]
            try:
                self._carry_out(client, order)
            except Canceled:
                raise
            except MotionBoothError as error:
                if error.retryable:
                    raise
                self._news.append(Refused(order, str(error)))
            self._short.popleft()

    def _withdraw(self) -> None:
        """Take back films that were canceled before they could be sent."""
        waiting = list(self._short)
        for cancel in waiting:
            film = next((order for order in waiting if isinstance(order, Film) and order.job == cancel.job), None)
            if isinstance(cancel, Cancel) and film is not None:
                self._short.remove(film)
                self._short.remove(cancel)
                self._news.append(Changed(film.job, JobState.CANCELED, 0, "", []))

    def _carry_out(self, client: Client, order: AnyOrder) -> None:
        match order:
            case Film(job, spec):
                client.submit(job, spec)
                self._attach(client, job, 0)
            case Follow(job, after_seq):
                self._attach(client, job, after_seq)
            case Cancel(job) if job in self._carried:
                self._dropped.add(job)
            case Cancel(job):
                client.cancel(job)
            case Look():
                self._look(client)
            case Forget(job):
                self._followed.pop(job, None)
                client.forget(job)

    def _attach(self, client: Client, job: str, last_seq: int) -> None:
        self._followed.setdefault(job, last_seq)
        try:
            snapshot = client.attach(job, last_seq)
        except NotFound:
            self._changed(
                job, JobState.FAILED, last_seq, "The backend does not know this job any more; send it again.", []
            )
            return
        now = snapshot.job
        self._changed(job, now.state, snapshot.last_seq, now.error, now.results)

    def _heard(self, message: messages.AnyReply) -> None:
        match message:
            case Progress(job=job):
                self._latest[Progress, job] = message
            case messages.Event(job=job, seq=seq) if seq > self._followed.get(job, seq):
                self._changed(job, message.state, seq, message.error, message.results)
            case messages.Preview(job=job, report=preview):
                self._keep_preview(job, preview)

    def _changed(self, job: str, state: JobState, last_seq: int, error: str, results: list[Blob]) -> None:
        if state in TERMINAL_STATES:
            self._followed.pop(job, None)
        else:
            self._followed[job] = last_seq
        self._latest.pop((Progress, job), None)  # is of the state before
        self._news.append(Changed(job, state, last_seq, error, results))

    def _keep_preview(self, job: str, preview: PreviewReport) -> None:
        suffix = ".png" if preview.picture.startswith(b"\x89PNG") else ".jpg"
        # A number of our own: what a backend calls its stages is no part of a path.
        path = self._scratch / f"{job}_{next(self._previews)}{suffix}"
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            path.write_bytes(preview.picture)
        except OSError:  # a full disk costs the preview, nothing else
            return
        self._latest[Pictured, job] = Pictured(job, path)

    # The second thread: pictures to the backend, results to files

    def _run_long(self) -> None:
        client = self._client()
        try:
            while not self._stop.is_set():
                try:
                    order = self._long.get(timeout=_LISTEN_SECONDS)
                except queue.Empty:
                    continue
                try:
                    self._carry(client, order)
                except Canceled:
                    return
        finally:
            client.close()

    def _carry(self, client: Client, order: Train | Fetch) -> None:
        """Until it is done, refused or canceled. Raises Canceled where Blender ends."""
        try:
            while not self._tried(client, order):
                while not self._linked.wait(_LISTEN_SECONDS):
                    self._go_on(order.job)
        except Canceled:
            if order.job not in self._dropped:
                raise
            self._news.append(Changed(order.job, JobState.CANCELED, 0, "", []))
        except MotionBoothError as error:
            self._news.append(Refused(order, str(error)))
        except OSError as error:
            self._news.append(Refused(order, str(_about_file(error))))
        finally:
            self._carried.discard(order.job)
            self._dropped.discard(order.job)

    def _tried(self, client: Client, order: Train | Fetch) -> bool:
        """False where the network broke: again, from where it got to."""
        try:
            match order:
                case Train():
                    self._send(client, order)
                case Fetch():
                    self._fetch(client, order)
        except MotionBoothError as error:
            if not error.retryable or isinstance(error, OutOfSpace):
                raise
            self._linked.clear()
            return False
        return True

    def _send(self, client: Client, train: Train) -> None:
        order = train.order
        files = [(Path(image), Path(mask) if mask else None) for image, mask in order.pictures]
        if order.render is not None:
            told = partial(self._report, train.job, "rendering pictures")
            files = background_render.render(self._renderer, order.render, train.folder, told)
        sent = []
        for number, (image, mask) in enumerate(files):
            self._report(train.job, "sending pictures", number, len(files))
            digest = client.upload(image, lambda have, size: self._go_on(train.job))
            sent.append(Picture(digest, client.upload(mask) if mask else None))
        subject = SubjectSpec(name=order.name, token=order.token, class_word=order.class_word, pictures=sent)
        self._go_on(train.job)
        client.submit(train.job, order.spec(subject))
        self._short.append(Follow(train.job))

    def _fetch(self, client: Client, order: Fetch) -> None:
        began, from_ = time.monotonic(), -1

        def on_bytes(have: int, size: int) -> None:
            nonlocal from_
            from_ = have if from_ < 0 else from_
            speed = (have - from_) / max(time.monotonic() - began, 1e-3)
            left = (size - have) / speed if speed > 0 else None
            self._report(order.job, "fetching", have // CHUNK_BYTES, -(-size // CHUNK_BYTES), left)

        client.fetch(order.blob, order.path, on_bytes)
        self._latest.pop((Progress, order.job), None)
        self._news.append(Fetched(order.job, order.blob.role, order.path))

    def _report(self, job: str, stage: str, step: int, steps: int, left: float | None = None) -> None:
        self._go_on(job)
        self._latest[Progress, job] = Progress(job=job, report=ProgressReport(stage, step, steps, left))

    def _go_on(self, job: str) -> None:
        """Raises Canceled where the job was, or where Blender ends."""
        if self._stop.is_set() or job in self._dropped:
            raise Canceled("Canceled before it was sent.")


def _about_file(error: OSError) -> MotionBoothError:
    if is_disk_full(error):
        return OutOfSpace(f"The disk of {error.filename} is full; free some space there and try again.")
    return NotFound(f"{error.filename} cannot be used ({error.strerror}); check its folder and permissions.")
