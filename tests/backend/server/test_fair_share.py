"""Whose turn it is: priority, fairness between owners, and no needless loading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from motionbooth.server.database import demand_of
from motionbooth.server.fair_share import LONGEST_RUN, Turn, Turns
from motionbooth.server.store import Store
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, SubjectTrack
from msgspec.structs import replace
from running_backend import SHOT, small_job

TOM, ANN = "a" * 64, "b" * 64


class Queue:
    """A store, and jobs that end as soon as the next one begins at their place."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.turns = Turns(store.database)
        self._there: dict[str, Turn] = {}
        self._count = 0

    def add(self, owner: str, count: int = 1, subject: str = "", priority: int = 0, model: str = "small") -> None:
        tracks = [SubjectTrack("x", "dog", [Box(0, 0, 1, 1)] * 8, token="sks", weights=subject)] if subject else []
        for _ in range(count):
            self._count += 1
            shot = replace(SHOT, name=f"{owner}{self._count}", subjects=tracks)
            spec = GenerateSpec(shot, "a sks dog", model=model)
            self.store.submit(owner, f"job-{self._count:06}", spec, priority)

    def step(self, *idle: str) -> str | None:
        """The name of the shot whose turn it is; what ran there before has ended."""
        for place in idle:
            if place in self._there:
                self.turns.ended(self._there.pop(place).number)
        turn = self.turns.next(list(idle))
        if turn is None:
            return None
        self.store.start(turn.number)
        self.turns.took(turn)
        self._there[turn.place] = turn
        return self.store.job(turn.number).name

    def order(self, count: int) -> str:
        """The owners that are served, one letter each, at one place."""
        return "".join((self.step("one") or "-")[0] for _ in range(count))

    def place_of(self, name: str) -> str:
        return next(place for place, turn in self._there.items() if self.store.job(turn.number).name == name)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    store = Store(tmp_path / "jobs.sqlite")
    yield Queue(store)
    store.close()


def test_the_highest_priority_comes_first_then_the_oldest(queue: Queue) -> None:
    for priority in (-1, 0, 0, 5):
        queue.add("a", priority=priority)
    assert [queue.step("one") for _ in range(5)] == ["a4", "a2", "a3", "a1", None]


def test_a_user_with_a_thousand_jobs_does_not_keep_another_waiting(queue: Queue) -> None:
    queue.add("a", 1000, model="m1")
    queue.order(3)
    queue.add("b", 3, model="m2")
    assert "b" in queue.order(LONGEST_RUN + 1)


def test_owners_take_turns_where_nothing_is_gained_by_order(queue: Queue) -> None:
    for owner, count in (("a", 5), ("b", 2), ("c", 3)):
        for _ in range(count):
            queue.add(owner, model=f"model-{owner}-{queue._count}")
    assert queue.order(11) == "abcabcacaa-"


def test_whoever_has_fewer_jobs_running_is_next(queue: Queue) -> None:
    for owner in "aaab":
        queue.add(owner, model=f"model-{owner}-{queue._count}")
    assert [queue.step("one"), queue.step("two"), queue.step("three")] == ["a1", "b4", "a2"]


def test_jobs_with_the_same_base_and_subject_run_back_to_back_whosever_they_are(queue: Queue) -> None:
    for owner, subject in (("a", TOM), ("a", ANN), ("b", ANN), ("b", TOM)):
        queue.add(owner, subject=subject)
    assert [queue.step("one") for _ in range(4)] == ["a1", "b4", "a2", "b3"]


def test_a_run_of_such_jobs_ends_while_others_wait(queue: Queue) -> None:
    queue.add("a", 3 * LONGEST_RUN, subject=TOM)
    queue.step("one")
    queue.add("b", 1, subject=ANN)
    assert queue.order(LONGEST_RUN) == "a" * (LONGEST_RUN - 1) + "b"


def test_a_job_goes_where_its_subject_or_its_base_is_in_memory(queue: Queue) -> None:
    queue.add("a", 1, subject=TOM)
    queue.add("a", 1, model="other")
    queue.step("one", "two")
    queue.step("two")
    queue.add("b", 1, subject=TOM)
    assert queue.step("two", "one") == "b3"
    assert queue.place_of("b3") == "one"
    queue.add("b", 1, model="other", subject=ANN)
    queue.step("three", "one", "two")
    assert queue.place_of("b4") == "two"


def test_a_place_whose_worker_died_has_nothing_in_memory(queue: Queue) -> None:
    queue.add("a", 1, subject=TOM)
    queue.step("one")
    (number,) = queue.turns.running.values()
    assert queue.turns.model_at("one") == "small"
    queue.turns.ended(number, memory_lost=True)
    assert (queue.turns.running, queue.turns.model_at("one")) == ({}, "")


def test_a_long_queue_costs_no_more_than_a_short_one(queue: Queue) -> None:
    queue.add("a", 2, subject=TOM)
    queue.add("b", 2)
    asked: list[str] = []
    connection = queue.store.database._connection
    connection.set_trace_callback(asked.append)
    queue.turns.next(["one"])
    queue.step("one")
    queue.turns.next(["one"])
    connection.set_trace_callback(None)
    questions = {statement for statement in asked if "'queued'" in statement and "SELECT" in statement}
    assert len(questions) >= 3
    for question in questions:
        plan = [row[3] for row in queue.store.database.rows(f"EXPLAIN QUERY PLAN {question}")]
        steps = [step for step in plan if "jobs" in step]
        assert steps
        assert all(step.startswith("SEARCH jobs USING") and "INDEX jobs_" in step for step in steps), plan
        assert not any("TEMP B-TREE" in step for step in plan), plan


def test_a_training_leaves_nothing_in_memory_that_another_job_could_use() -> None:
    subject = SubjectSpec("Tom", "sks", "dog", [Picture(TOM)])
    assert demand_of(TrainSpec(subject)) == ""
    assert demand_of(small_job()) == "small"
