"""Which job is assigned next: priority, fairness between owners, and no needless loading."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from motionbooth.server.database import Database
from motionbooth.server.fair_share import MAX_AFFINITY_RUN, Assignment, FairShare
from motionbooth.server.specs import AffinityKey, affinity_key
from motionbooth.server.store import Store
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, SubjectTrack
from msgspec.structs import replace
from running_backend import SHOT, small_job

TOM, ANN = "a" * 64, "b" * 64


class Queue:
    """A store with jobs that end as soon as the next one starts in their slot."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.fair_share = FairShare(store.database)
        self._running: dict[str, Assignment] = {}
        self.count = 0

    def add(self, owner: str, count: int = 1, subject: str = "", priority: int = 0, model: str = "small") -> None:
        tracks = [SubjectTrack("x", "dog", [Box(0, 0, 1, 1)] * 8, token="sks", weights=subject)] if subject else []
        for _ in range(count):
            self.count += 1
            shot = replace(SHOT, name=f"{owner}{self.count}", subjects=tracks)
            spec = GenerateSpec(shot, "a sks dog", model=model)
            self.store.transitions.submit(owner, f"job-{self.count:06}", spec, priority)

    def step(self, *idle: str) -> str | None:
        """The name of the shot that is assigned next; the jobs in these slots have ended."""
        for slot in idle:
            if slot in self._running:
                self.fair_share.release(self._running.pop(slot).job_number)
        assignment = self.fair_share.next(list(idle))
        if assignment is None:
            return None
        self.store.transitions.start(assignment.job_number)
        self.fair_share.assign(assignment)
        self._running[assignment.slot] = assignment
        return self._name(assignment)

    def order(self, count: int) -> str:
        """The owners of the next jobs, one letter each, with one slot."""
        return "".join((self.step("one") or "-")[0] for _ in range(count))

    def slot_of(self, name: str) -> str:
        return next(slot for slot, assignment in self._running.items() if self._name(assignment) == name)

    def _name(self, assignment: Assignment) -> str:
        return self.store.queries.job(assignment.job_number).name


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
    assert "b" in queue.order(MAX_AFFINITY_RUN + 1)


def test_owners_take_turns_if_no_order_saves_loading(queue: Queue) -> None:
    for owner, count in (("a", 5), ("b", 2), ("c", 3)):
        for _ in range(count):
            queue.add(owner, model=f"model-{owner}-{queue.count}")
    assert queue.order(11) == "abcabcacaa-"


def test_the_owner_with_fewer_running_jobs_is_next(queue: Queue) -> None:
    for owner in "aaab":
        queue.add(owner, model=f"model-{owner}-{queue.count}")
    assert [queue.step("one"), queue.step("two"), queue.step("three")] == ["a1", "b4", "a2"]


def test_jobs_with_the_same_base_and_subject_run_back_to_back_for_all_owners(queue: Queue) -> None:
    for owner, subject in (("a", TOM), ("a", ANN), ("b", ANN), ("b", TOM)):
        queue.add(owner, subject=subject)
    assert [queue.step("one") for _ in range(4)] == ["a1", "b4", "a2", "b3"]


def test_a_run_of_such_jobs_ends_while_others_wait(queue: Queue) -> None:
    queue.add("a", 3 * MAX_AFFINITY_RUN, subject=TOM)
    queue.step("one")
    queue.add("b", 1, subject=ANN)
    assert queue.order(MAX_AFFINITY_RUN) == "a" * (MAX_AFFINITY_RUN - 1) + "b"


def test_a_job_is_assigned_to_the_slot_with_its_subject_or_base_in_memory(queue: Queue) -> None:
    queue.add("a", 1, subject=TOM)
    queue.add("a", 1, model="other")
    queue.step("one", "two")
    queue.step("two")
    queue.add("b", 1, subject=TOM)
    assert queue.step("two", "one") == "b3"
    assert queue.slot_of("b3") == "one"
    queue.add("b", 1, model="other", subject=ANN)
    queue.step("three", "one", "two")
    assert queue.slot_of("b4") == "two"


def test_a_slot_whose_worker_died_has_nothing_in_memory(queue: Queue) -> None:
    queue.add("a", 1, subject=TOM)
    queue.step("one")
    (number,) = queue.fair_share.running
    assert queue.fair_share.model_in("one") == "small"
    queue.fair_share.release(number, memory_lost=True)
    assert (queue.fair_share.jobs_by_slot(), queue.fair_share.model_in("one")) == ({}, "")


def test_a_long_queue_costs_no_more_than_a_short_one(queue: Queue, tmp_path: Path) -> None:
    queue.add("a", 2, subject=TOM)
    queue.add("b", 2)
    asked: dict[str, tuple[Any, ...]] = {}

    class Spy(Database):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            asked[statement] = values
            return super().execute(statement, *values)

    queue.store.close()
    queue = Queue(Store(tmp_path / "jobs.sqlite", open_database=Spy))
    queue.fair_share.next(["one"])
    queue.step("one")
    queue.fair_share.next(["one"])
    questions = {
        statement: values for statement, values in asked.items() if "'queued'" in statement and "SELECT" in statement
    }
    assert len(questions) >= 3
    for question, values in questions.items():
        plan = [row[3] for row in queue.store.database.rows(f"EXPLAIN QUERY PLAN {question}", *values)]
        steps = [step for step in plan if "jobs" in step]
        assert steps
        assert all(step.startswith("SEARCH jobs USING") and " INDEX " in step for step in steps), plan
        assert not any("TEMP B-TREE" in step for step in plan), plan


def test_a_training_leaves_nothing_in_memory_that_another_job_could_use() -> None:
    subject = SubjectSpec("Tom", "sks", "dog", [Picture(TOM)])
    assert affinity_key(TrainSpec(subject)) is None
    assert affinity_key(small_job()) == AffinityKey("small")


def test_an_affinity_key_comes_back_from_the_database_as_it_was() -> None:
    key = AffinityKey("a model", (TOM, ANN))
    assert AffinityKey.decoded(key.encoded()) == key
