"""Whose turn it is, and at which worker.

The highest priority first. Within it the owners take turns: whoever has the fewest jobs running, then whoever was
served longest ago; of an owner's jobs the oldest. A job that waits for the results of a running one (its leader) has
no turn meanwhile. But a worker that has a base model and a subject in its memory first goes on with what needs just
these, whosever it is, for at most LONGEST_RUN jobs in a row: then the turn passes on, so that nobody waits for ever.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from motionbooth.server.database import Database

LONGEST_RUN = 4

# Walks from owner to owner along the index, so that a long queue costs no more than a short one.
_OWNERS = """
WITH RECURSIVE waiting (owner) AS (
    SELECT min(owner) FROM jobs WHERE state = 'queued' AND leader IS NULL AND priority = ?1
    UNION ALL
    SELECT (
        SELECT min(jobs.owner) FROM jobs
        WHERE state = 'queued' AND leader IS NULL AND priority = ?1 AND jobs.owner > waiting.owner
    )
    FROM waiting WHERE waiting.owner IS NOT NULL
)
SELECT owner FROM waiting WHERE owner IS NOT NULL
"""


# Of the demands in a JSON list, the first that a job waits for, and the oldest such job.
_FIRST_DEMAND = """
SELECT value, (
    SELECT number FROM jobs WHERE state = 'queued' AND leader IS NULL AND priority = ?1 AND demand = value
    ORDER BY number LIMIT 1
) AS oldest
FROM json_each(?2) WHERE oldest IS NOT NULL LIMIT 1
"""


@dataclass(frozen=True)
class Turn:
    """The next job, by its number, and the place where it is to run."""

    number: int
    owner: str
    demand: str
    place: str


@dataclass
class _Memory:
    """What a place has in memory, as far as we know, and how many jobs in a row it was used for."""

    demand: str = ""
    run: int = 0

    @property
    def model(self) -> str:
        return model_of(self.demand)


class Turns:
    """Knows who runs and what is in whose memory. One turn is `next`, then `took`; its end is `ended`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._memories: defaultdict[str, _Memory] = defaultdict(_Memory)
        self._running: dict[int, Turn] = {}
        self._busy: Counter[str] = Counter()  # jobs that run, by owner
        self._served_at: dict[str, int] = {}  # owner -> count of turns at the last one
        self._count = itertools.count(1)

    @property
    def running(self) -> dict[str, int]:
        """Place -> number of the job there."""
        return {turn.place: number for number, turn in self._running.items()}

    def model_at(self, place: str) -> str:
        """The base model that is in memory there, "" for none."""
        return self._memories[place].model

    def next(self, idle: Sequence[str]) -> Turn | None:
        """Whose turn it is at one of the idle places."""
        ((priority,),) = self._database.rows("SELECT max(priority) FROM jobs WHERE state = 'queued' AND leader IS NULL")
        if priority is None or not idle:
            return None
        turn = self._goes_on(priority, idle)
        if turn is not None:
            return turn
        owners = [owner for (owner,) in self._database.rows(_OWNERS, priority)]
        owner = min(owners, key=lambda one: (self._busy[one], self._served_at.get(one, 0)))
        number, demand = self._database.rows(
            "SELECT number, demand FROM jobs WHERE state = 'queued' AND leader IS NULL AND priority = ? AND owner = ? "
            "ORDER BY number LIMIT 1",
            priority, owner,
        )[0]  # fmt: skip
        return Turn(number, owner, demand, self._best_place(demand, idle))

    def took(self, turn: Turn) -> None:
        """The job runs there now."""
        memory = self._memories[turn.place]
        same = memory.demand == turn.demand
        memory.demand, memory.run = turn.demand, memory.run + 1 if same and memory.run < LONGEST_RUN else 1
        self._running[turn.number] = turn
        self._busy[turn.owner] += 1
        self._served_at[turn.owner] = next(self._count)

    def ended(self, number: int, memory_lost: bool = False) -> None:
        """The job runs no more; `memory_lost`: its worker is gone."""
        turn = self._running.pop(number, None)
        if turn is None:
            return
        self._busy[turn.owner] -= 1
        if not self._busy[turn.owner]:
            del self._busy[turn.owner]
        if memory_lost:
            self._memories.pop(turn.place, None)

    def _goes_on(self, priority: int, idle: Sequence[str]) -> Turn | None:
        """A job for which an idle place has the right things in memory, where that place has not had its run yet."""
        places: dict[str, str] = {}
        for place in idle:
            memory = self._memories[place]
            if memory.demand and memory.run < LONGEST_RUN:
                places.setdefault(memory.demand, place)
        row = self._database.row(_FIRST_DEMAND, priority, json.dumps(list(places))) if places else None
        if row is None:
            return None
        demand, number = row
        ((owner,),) = self._database.rows("SELECT owner FROM jobs WHERE number = ?", number)
        return Turn(number, owner, demand, places[demand])

    def _best_place(self, demand: str, idle: Sequence[str]) -> str:
        """Where the right things are in memory, else the right model, else nothing that another job may want."""

        model = model_of(demand)

        def loss(place: str) -> int:
            memory = self._memories[place]
            if demand and memory.demand == demand:
                return 0
            if not memory.demand:
                return 2
            return 1 if memory.model == model else 3

        return min(idle, key=loss)


def model_of(demand: str) -> str:
    """The base model of a demand (see database.demand_of)."""
    return demand.partition(" ")[0]
