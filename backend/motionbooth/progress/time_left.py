"""The time left of a job: one figure for all of its stages, from the pace of its own steps and of earlier jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

Paces = dict[tuple[str, str], float]
"""Seconds per unit of work, by kind of job and name of stage. A process keeps them from job to job."""


@dataclass(frozen=True)
class Stage:
    """A part of a job."""

    name: str
    steps: int
    work: float = 0.0
    """Work of one step, in a unit that all stages of the job share. 0: it does not compare with other stages (loading a
    file, for instance), and counts as nothing until a job has run it once."""
    every: int = 0
    """There is `extra` work after each `every` steps and after the last one; 0 for none."""
    extra: float = 0.0

    def done(self, step: int) -> float:
        """The work of the first `step` steps, or `step` itself if `work` is 0."""
        if not self.work:
            return float(step)
        extras = (step // self.every + (step == self.steps and step % self.every > 0)) if self.every else 0
        return step * self.work + extras * self.extra

    @property
    def total(self) -> float:
        return self.done(self.steps)


@dataclass
class _Measured:
    """A stage that has begun: its latest step, and the work and seconds measured so far."""

    stage: Stage
    step: int
    work: float = 0.0
    seconds: float = 0.0

    @property
    def pace(self) -> float | None:
        return self.seconds / self.work if self.work > 0 else None


class TimeLeft:
    """Estimates the time left of one job from its steps. `job`: the kind of job, under which `paces` are kept."""

    def __init__(self, job: str = "", paces: Paces | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._paces: Paces = {} if paces is None else paces
        self._clock = clock
        self._plan: list[Stage] = []
        self._begun: dict[str, _Measured] = {}
        self._name = ""  # of the current stage
        self._at = 0.0  # when its latest step was reported

    def plan(self, stages: Sequence[Stage]) -> None:
        """The job's stages, in order. A stage that is never reported was not needed."""
        self._plan = list(stages)

    def step(self, name: str, step: int, steps: int) -> float | None:
        """`step` of `steps` of a stage are done. Returns the seconds left of the whole job, None while unknown."""
        now = self._clock()
        stage = replace(next((each for each in self._plan if each.name == name), Stage(name, steps)), steps=steps)
        measured = self._begun.setdefault(name, _Measured(stage, step))
        if measured.stage != stage or step < measured.step:  # counted differently, or started again
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
        """Each unfinished stage with its remaining work."""
        current = self._begun[self._name]
        left = [(current.stage, current.stage.total - current.stage.done(current.step))]
        names = [stage.name for stage in self._plan]
        after = names.index(self._name) if self._name in names else -1
        for number, stage in enumerate(self._plan):
            begun = self._begun.get(stage.name)
            if begun is None and number > after:
                left.append((stage, stage.total))
            elif begun is not None and stage.name != self._name:  # stages may alternate
                left.append((begun.stage, begun.stage.total - begun.stage.done(begun.step)))
        return left

    def _pace(self, stage: Stage) -> float | None:
        """Seconds per unit of work: as measured in this stage, in an earlier job, or in this job's other stages."""
        begun = self._begun.get(stage.name)
        if begun is not None and begun.pace is not None:
            return begun.pace
        remembered = self._paces.get((self._job, stage.name))
        if remembered is not None or not stage.work:
            return remembered
        comparable = [each for each in self._begun.values() if each.stage.work]
        work = sum(each.work for each in comparable)
        return sum(each.seconds for each in comparable) / work if work > 0 else None
