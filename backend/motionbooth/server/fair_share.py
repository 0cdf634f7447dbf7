"""Decides which job runs next, and on which worker slot.

The highest priority comes first. Within a priority owners take turns: the one with the fewest running jobs first, then
the one that has waited longest; of an owner's jobs the oldest. A job that is coalesced with a running one is not
assigned. A worker first continues with jobs of its affinity key, of any owner, whose model and subjects it has in
memory; but at most MAX_AFFINITY_RUN in a row, so that no other job waits forever.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import KeysView, Sequence
from dataclasses import dataclass

from motionbooth.server.attempts import JobNumber
from motionbooth.server.database import Database
from motionbooth.server.specs import AffinityKey

MAX_AFFINITY_RUN = 4
_ASSIGNABLE = "state = 'queued' AND coalesced_with IS NULL"

# Walks from owner to owner along the index, so that a long queue costs no more than a short one. Its two values are the
# same priority.
_OWNERS = f"""
WITH RECURSIVE waiting (owner) AS (
    SELECT min(owner) FROM jobs WHERE {_ASSIGNABLE} AND priority = ?
    UNION ALL
    SELECT (SELECT min(jobs.owner) FROM jobs WHERE {_ASSIGNABLE} AND priority = ? AND jobs.owner > waiting.owner)
    FROM waiting WHERE waiting.owner IS NOT NULL
)
SELECT owner FROM waiting WHERE owner IS NOT NULL
"""

# The first affinity key of a JSON list for which a job is queued, and the oldest such job.
_FIRST_WITH_AFFINITY = f"""
SELECT value, (
    SELECT number FROM jobs WHERE {_ASSIGNABLE} AND priority = ? AND affinity_key = value ORDER BY number LIMIT 1
) AS oldest
FROM json_each(?) WHERE oldest IS NOT NULL LIMIT 1
"""


@dataclass(frozen=True)
class Assignment:
    """A job and the worker slot (by its name) that is to run it."""

    job_number: JobNumber
    owner: str
    affinity_key: AffinityKey | None
    slot: str


@dataclass
class _Memory:
    """What a slot's worker has in memory, as far as known, and how many jobs in a row have used it."""

    affinity_key: AffinityKey | None = None
    encoded: str = ""  # the affinity key, for queries
    run: int = 0

    @property
    def model(self) -> str:
        return self.affinity_key.model if self.affinity_key is not None else ""


class FairShare:
    """Keeps track of running jobs and of the workers' memory. `next` proposes an assignment, `assign` records it,
    `release` ends it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._memories: defaultdict[str, _Memory] = defaultdict(_Memory)
        self._running: dict[JobNumber, Assignment] = {}
        self._busy: Counter[str] = Counter()  # running jobs by owner
        self._assigned_at: dict[str, int] = {}  # owner -> count of assignments at the last one
        self._count = itertools.count(1)

    @property
    def running(self) -> KeysView[JobNumber]:
        """The running jobs."""
        return self._running.keys()

    def jobs_by_slot(self) -> dict[str, JobNumber]:
        """The job that runs in each busy slot."""
        return {assignment.slot: number for number, assignment in self._running.items()}

    def model_in(self, slot: str) -> str:
        """The base model in memory there, "" for none."""
        return self._memories[slot].model

    def next(self, idle: Sequence[str]) -> Assignment | None:
        """The next job for one of the idle slots; None if there is no job or no slot."""
        ((priority,),) = self._database.rows(f"SELECT max(priority) FROM jobs WHERE {_ASSIGNABLE}")
        if priority is None or not idle:
            return None
        assignment = self._next_with_affinity(priority, idle)
        if assignment is not None:
            return assignment
        owners = [owner for (owner,) in self._database.rows(_OWNERS, priority, priority)]
        owner = min(owners, key=lambda one: (self._busy[one], self._assigned_at.get(one, 0)))
        number, encoded = self._database.rows(
            f"SELECT number, affinity_key FROM jobs WHERE {_ASSIGNABLE} AND priority = ? AND owner = ? "
            "ORDER BY number LIMIT 1",
            priority, owner,
        )[0]  # fmt: skip
        affinity_key = AffinityKey.decoded(encoded) if encoded is not None else None
        return Assignment(number, owner, affinity_key, self._best_slot(affinity_key, idle))

    def assign(self, assignment: Assignment) -> None:
        """The job runs there from now on."""
        memory = self._memories[assignment.slot]
        continues = memory.affinity_key == assignment.affinity_key and memory.run < MAX_AFFINITY_RUN
        memory.affinity_key, memory.run = assignment.affinity_key, memory.run + 1 if continues else 1
        memory.encoded = memory.affinity_key.encoded() if memory.affinity_key is not None else ""
        self._running[assignment.job_number] = assignment
        self._busy[assignment.owner] += 1
        self._assigned_at[assignment.owner] = next(self._count)

    def release(self, job_number: JobNumber, memory_lost: bool = False) -> None:
        """The job does not run any more. `memory_lost`: its worker is gone."""
        assignment = self._running.pop(job_number, None)
        if assignment is None:
            return
        self._busy[assignment.owner] -= 1
        if not self._busy[assignment.owner]:
            del self._busy[assignment.owner]
        if memory_lost:
            self._memories.pop(assignment.slot, None)

    def release_all(self) -> None:
        """No job runs any more, as far as known."""
        self._running.clear()
        self._busy.clear()

    def _next_with_affinity(self, priority: int, idle: Sequence[str]) -> Assignment | None:
        """A job for whose affinity key an idle slot is ready and has not had its run yet."""
        slots: dict[str, str] = {}  # by encoded affinity key
        for slot in idle:
            memory = self._memories[slot]
            if memory.encoded and memory.run < MAX_AFFINITY_RUN:
                slots.setdefault(memory.encoded, slot)
        row = self._database.row(_FIRST_WITH_AFFINITY, priority, json.dumps(list(slots))) if slots else None
        if row is None:
            return None
        encoded, number = row
        ((owner,),) = self._database.rows("SELECT owner FROM jobs WHERE number = ?", number)
        return Assignment(number, owner, AffinityKey.decoded(encoded), slots[encoded])

    def _best_slot(self, affinity_key: AffinityKey | None, idle: Sequence[str]) -> str:
        """The slot that loses least: with the right things in memory, else the right model, else an empty one."""

        def loss(slot: str) -> int:
            memory = self._memories[slot]
            if affinity_key is not None and memory.affinity_key == affinity_key:
                return 0
            if memory.affinity_key is None:
                return 2
            return 1 if affinity_key is not None and memory.model == affinity_key.model else 3

        return min(idle, key=loss)
