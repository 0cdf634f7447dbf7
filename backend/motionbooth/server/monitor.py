"""A view of the whole backend, made by the server's loop, for threads that must not touch the store."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from motionbooth_protocol import messages
from motionbooth_protocol.jobs import Job

from motionbooth.server.live_state import Counters
from motionbooth.server.views import Views

_SECONDS_BETWEEN_VIEWS = 1.0
_JOBS_SHOWN = 40  # running, queued and ended: of each


@dataclass(frozen=True)
class BackendView:
    """The backend at one moment: `jobs` as in JobQueries.jobs_by_state, `previews` by the job's id."""

    status: messages.Status
    jobs: list[Job] = field(default_factory=list)
    previews: dict[str, bytes] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)


class Monitor:
    """Replaces `view` as a whole once a second, so that any thread may read it."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._made_at = time.monotonic()
        self.view = self._new_view()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._made_at >= _SECONDS_BETWEEN_VIEWS:
            self.view, self._made_at = self._new_view(), now

    def _new_view(self) -> BackendView:
        views = self._views
        return BackendView(views.whole_status(), views.jobs_by_state(_JOBS_SHOWN), views.previews(), views.counters())
