"""How long a job still takes: one figure for all of its stages, from the pace of its own steps and of earlier jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

Paces = dict[tuple[str, str], float]
"""Seconds per unit of work of a stage, by the kind of job and the stage's name: what a process keeps between jobs."""


@dataclass(frozen=True)
class Stage:
    """A part of a job: `steps` steps of `work` each, in a unit that all stages of the job share.

    Each `every` steps, and after the last one, there is `extra` work besides. A stage without `work` (loading a file,
    say) compares with no other: until a job has been through it, nothing is known of it, and nothing is counted for it.
    """

    name: str
    steps: int
    work: float = 0.0
    every: int = 0
    extra: float = 0.0

    def done(self, step: int) -> float:
        """The work of the first `step` steps; the steps themselves where work cannot be compared."""
        if not self.work:
            return float(step)
        extras = (step // self.every + (step == self.steps and step % self.every > 0)) if self.every else 0
        return step * self.work + extras * self.extra

    @property
    def total(self) -> float:
        return self.done(self.steps)


@dataclass
class _Measured:
    """A stage that has begun: its latest step, and what it took."""

    stage: Stage
    step: int
    work: float = 0.0
    seconds: float = 0.0

    @property
    def pace(self) -> float | None:
        return self.seconds / self.work if self.work > 0 else None


class TimeLeft:
    """Told of each step of one job. `job`: the kind of job, for which `paces` are remembered."""

    def __init__(self, job: str = "", paces: Paces | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._paces: Paces = {} if paces is None else paces
        self._clock = clock
        self._plan: list[Stage] = []
        self._begun: dict[str, _Measured] = {}
        self._name = ""  # of the present stage
        self._at = 0.0  # when its latest step was told

    def plan(self, stages: Sequence[Stage]) -> None:
        """What the job consists of, in order. A stage that is never told of was not needed."""
        self._plan = list(stages)

    def step(self, name: str, step: int, steps: int) -> float | None:
        """`step` of `steps` of a stage are done: the seconds that the whole job still takes, None while unknown."""
        now = self._clock()
        stage = replace(next((each for each in self._plan if each.name == name), Stage(name, steps)), steps=steps)
        measured = self._begun.setdefault(name, _Measured(stage, step))
        if measured.stage != stage or step < measured.step:  # it is counted otherwise, or begun again
            measured = self._begun[name] = _Measured(stage, step)
        elif name == self._name:
            measured.work += stage.done(step) - stage.done(measured.step)
            measured.seconds += now - self._at
        measured.step = step
        self._name, self._at = name, now
        if measured.pace is not None:
            self._paces[self._job, name] = measured.pace
        return self._left()

    def _left(self) -> float | None:
        left = 0.0
        for stage, work in self._remaining():
            pace = self._pace(stage)
            if pace is None and work and (stage.work or stage.name == self._name):
                return None
            left += (pace or 0.0) * work
        return left

    def _remaining(self) -> list[tuple[Stage, float]]:
        """Each stage that is not over, with its work that is left."""
        present = self._begun[self._name]
        left = [(present.stage, present.stage.total - present.stage.done(present.step))]
        names = [stage.name for stage in self._plan]
        after = names.index(self._name) if self._name in names else -1
        for number, stage in enumerate(self._plan):
            begun = self._begun.get(stage.name)
            if begun is None and number > after:
                left.append((stage, stage.total))
            elif begun is not None and stage.name != self._name:  # stages may take turns
                left.append((begun.stage, begun.stage.total - begun.stage.done(begun.step)))
        return left

    def _pace(self, stage: Stage) -> float | None:
        """Seconds per unit: as measured now; as in an earlier job; as in this job's other stages."""
        begun = self._begun.get(stage.name)
        if begun is not None and begun.pace is not None:
            return begun.pace
        remembered = self._paces.get((self._job, stage.name))
        if remembered is not None or not stage.work:
            return remembered
        comparable = [each for each in self._begun.values() if each.stage.work]
        work = sum(each.work for each in comparable)
        return sum(each.seconds for each in comparable) / work if work > 0 else None
