"""The backend as its owner watches it: a view made by the server's loop, for threads that must not touch the store."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from motionbooth_protocol import messages
from motionbooth_protocol.jobs import Job
from msgspec.structs import replace

from motionbooth.server.handlers import Answers
from motionbooth.server.keys import Key
from motionbooth.server.sessions import Sessions
from motionbooth.server.store import Store

_SECONDS_BETWEEN_VIEWS = 1.0
_JOBS_SHOWN = 40  # of each: running, waiting, ended
_OWNER = Key(public="", name="the owner of the backend", role="admin")


@dataclass(frozen=True)
class Watching:
    """How a backend is watched, besides by its clients. Ports are on this machine alone; None: not at all."""

    log_format: str = "text"  # or "json"
    metrics_port: int | None = None
    web_port: int | None = None

    @property
    def needs_views(self) -> bool:
        return self.metrics_port is not None or self.web_port is not None


UNWATCHED = Watching()


@dataclass(frozen=True)
class View:
    """The backend at one moment. `jobs`: everybody's, as Store.newest_of_all_states gives them; `pictures`: previews of
    running jobs, by the job's id.
    """

    status: messages.Status
    jobs: list[Job] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)


class Watch:
    """`view` is replaced as a whole, once a second: any thread may read it."""

    def __init__(self, answers: Answers, sessions: Sessions, store: Store) -> None:
        self._answers = answers
        self._sessions = sessions
        self._store = store
        self._made_at = time.monotonic()
        self.view = self._look()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._made_at >= _SECONDS_BETWEEN_VIEWS:
            self.view, self._made_at = self._look(), now

    def _look(self) -> View:
        status, _ = self._answers.answer(_OWNER, messages.GetStatus(id=0), None)
        assert isinstance(status, messages.Status)
        jobs = [self._answers.told(job) for job in self._store.newest_of_all_states(_JOBS_SHOWN)]
        pictures = {
            self._store.job(number).id: shown.report.picture for number, shown in self._answers.pictures.items()
        }
        return View(replace(status, sessions=len(self._sessions)), jobs, pictures)
