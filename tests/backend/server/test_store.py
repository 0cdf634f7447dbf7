from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from motionbooth.server.database import _SCHEMA_1
from motionbooth.server.fair_share import Turns
from motionbooth.server.store import MAX_SERVER_CRASHES, MAX_WORKER_DEATHS, Store, Work
from motionbooth_protocol.errors import Conflict, InvalidInput, NotFound
from motionbooth_protocol.jobs import TERMINAL_STATES, Blob
from running_backend import small_job

CLIP = Blob("clip", "a" * 64, 1000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def submitted(store: Store, job_id: str = "job-00001", seed: int = 0, priority: int = 0, owner: str = "ann") -> int:
    store.submit(owner, job_id, small_job(seed=seed), priority)
    return store.number(owner, job_id)


def next_turn(store: Store) -> int | None:
    """The number of the job that a server which has just started would take first."""
    turn = Turns(store.database).next(["here"])
    return None if turn is None else turn.number


def test_a_long_queue_hides_neither_what_runs_nor_what_ended(store: Store) -> None:
    for name in ("job-done", "job-runs"):
        work = store.start(submitted(store, name))
        if name == "job-done":
            store.finish(work.number, work.attempt, [CLIP])
    for number in range(20):
        submitted(store, f"job-{number:05}", seed=number, priority=number % 2)
    shown = store.newest_of_all_states(3)
    assert [job.id for job in shown] == ["job-runs", "job-00001", "job-00003", "job-00005", "job-done"]


def test_the_attempt_is_on_disk_before_anything_runs(store: Store, tmp_path: Path) -> None:
    work = store.start(submitted(store))
    store.close()
    again = Store(tmp_path / "jobs.sqlite")
    assert (again.job(work.number).state, again.job(work.number).attempt) == ("running", 1)
    again.close()


def test_a_report_of_an_older_attempt_changes_nothing(store: Store) -> None:
    stale = store.start(submitted(store))
    store.requeue_running(crashed=True)
    current = store.start(stale.number)
    assert not store.finish(stale.number, stale.attempt, [CLIP])
    assert not store.end(stale.number, stale.attempt, "failed", "too late")
    assert not store.worker_died(stale.number, stale.attempt, "too late")
    assert store.job(stale.number).state == "running"
    assert store.finish(current.number, current.attempt, [CLIP])
    assert not store.end(current.number, current.attempt, "canceled", "")
    assert store.job(stale.number).results == [CLIP]


def test_a_job_that_is_to_be_canceled_never_runs_again(store: Store) -> None:
    work = store.start(submitted(store))
    assert store.request_cancel(work.number) == ("running", 1)
    store.worker_died(work.number, work.attempt, "killed")
    assert store.job(work.number).state == "canceled"


def test_a_wish_to_cancel_outlives_the_server(store: Store, tmp_path: Path) -> None:
    work = store.start(submitted(store))
    store.request_cancel(work.number)
    store.close()
    again = Store(tmp_path / "jobs.sqlite")
    again.requeue_running(crashed=True)
    assert again.job(work.number).state == "canceled"
    again.close()


def test_a_job_whose_workers_die_is_given_up_after_a_few(store: Store) -> None:
    number = submitted(store)
    for _ in range(MAX_WORKER_DEATHS):
        work = store.start(number)
        store.worker_died(number, work.attempt, "The worker died.")
    assert store.job(number).state == "failed"
    assert store.job(number).error.startswith("The worker died.")


def test_a_job_that_takes_the_server_down_every_time_is_given_up(store: Store) -> None:
    number = submitted(store)
    for _ in range(MAX_SERVER_CRASHES):
        store.start(number)
        store.requeue_running(crashed=True)
    assert store.job(number).state == "failed"
    assert "ended 5 times" in store.job(number).error


def test_stops_in_good_order_are_not_counted_against_a_job(store: Store) -> None:
    number = submitted(store)
    for _ in range(3 * MAX_SERVER_CRASHES):
        store.start(number)
        store.requeue_running(crashed=False)
    assert store.job(number).state == "queued"


def test_finished_results_answer_the_same_wish_of_the_same_owner_and_version(store: Store, tmp_path: Path) -> None:
    work = store.start(submitted(store))
    wish = store.wish(work.number)
    assert (store.twin(wish, "done"), store.twin(wish, "running")) == (None, work.number)
    store.finish(work.number, work.attempt, [CLIP])
    assert (store.twin(wish, "done"), store.twin(wish, "running")) == (work.number, None)
    assert store.results(work.number) == [CLIP]
    assert store.twin(wish._replace(digest="another"), "done") is None
    assert store.twin(wish._replace(owner="bob"), "done") is None
    store.close()
    newer = Store(tmp_path / "jobs.sqlite", maker=lambda model: "99.0")
    assert newer.twin(wish, "done") is None
    newer.close()


def test_a_job_that_follows_another_has_a_turn_again_as_soon_as_that_one_stops(store: Store) -> None:
    leader = store.start(submitted(store))
    follower = submitted(store, "job-00002")
    store.follow(follower, leader.number)
    assert next_turn(store) is None
    store.requeue(leader.number, leader.attempt)
    assert next_turn(store) == leader.number
    store.start(leader.number)
    assert next_turn(store) == follower
    store.follow(follower, leader.number)
    store.requeue_running(crashed=True)
    assert next_turn(store) == leader.number


def test_two_owners_may_use_the_same_id_without_seeing_each_other(store: Store) -> None:
    anns, bobs = submitted(store, owner="ann"), submitted(store, seed=1, owner="bob")
    assert anns != bobs
    assert [job.id for job in store.jobs("ann", 10)] == ["job-00001"]
    with pytest.raises(NotFound):
        store.number("eve", "job-00001")


def test_the_number_of_a_forgotten_job_is_never_used_again(store: Store) -> None:
    first = store.start(submitted(store))
    store.end(first.number, first.attempt, "failed", "")
    store.forget(first.number)
    assert submitted(store, "job-00002") > first.number
    assert not store.finish(first.number, first.attempt, [CLIP])


def test_a_store_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(_SCHEMA_1)
        old.execute("PRAGMA user_version = 1")
        row = (
            "ann",
            "job-00001",
            "generate",
            msgspec.msgpack.encode(small_job()),
            "digest",
            "0.1",
            0,
            "done",
            1.0,
            1.0,
        )
        old.execute(
            "INSERT INTO jobs (owner, id, kind, spec, digest, maker, priority, state, created, updated) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row,
        )  # fmt: skip
        old.execute("INSERT INTO results VALUES (1, 'clip', ?, 1000)", (CLIP.sha256,))
        old.commit()
    store = Store(path)
    (job,) = store.jobs("ann", 10)
    assert (job.name, job.model, job.results) == ("shot", "small", [CLIP])
    assert store.holdings.used_by("ann") == 1000
    assert submitted(store, "job-00002", seed=1) == 2
    assert store.ended("ann", before=1.0, limit=10) == [1]
    assert store.forget(1) == [CLIP.sha256]
    assert next_turn(store) == 2
    store.close()


def test_a_large_store_answers_as_soon_as_a_small_one(store: Store) -> None:
    """Of one owner, as where an animator films for months; none of these may hold up the server's one loop."""
    with store.database.committed():
        for number in range(5000):
            clip = Blob("clip", f"{number:064}", 1000)
            store.submit("ann", f"job-{number:05}", small_job(seed=number), cached=[clip])
    for question in (
        lambda: store.waiting("ann"),
        lambda: store.jobs("ann", 100),
        lambda: store.ended("ann", float("inf"), limit=200, fetched_only=True),
        lambda: store.number("admin", "job-00001", everybodys=True),
        lambda: store.holdings.used(),
    ):
        began = time.process_time()
        question()
        assert time.process_time() - began < 0.1


def test_a_second_store_on_the_same_file_is_refused_and_the_first_goes_on(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="Another backend is running"):
        Store(tmp_path / "jobs.sqlite")
    submitted(store)


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(InvalidInput, match="newer MotionBooth"):
        Store(tmp_path / "jobs.sqlite")


def test_a_file_that_is_no_store_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"no database at all" * 1000)
    with pytest.raises(InvalidInput, match="cannot be read"):
        Store(tmp_path / "jobs.sqlite")


def test_a_clock_that_jumps_a_day_changes_no_order_and_ends_no_job(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submitted(store, "job-first")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    second = submitted(store, "job-second", seed=1)
    assert next_turn(store) == first
    assert [job.id for job in store.jobs("ann", 10)] == ["job-second", "job-first"]
    assert store.job(second).state == "queued"


class AnyOrder(RuleBasedStateMachine):
    """Whatever is submitted, run, lost, canceled and reported, early or late, in any order, across restarts."""

    numbers = Bundle("numbers")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.home.name) / "jobs.sqlite")
        self.known: dict[str, int] = {}

    def teardown(self) -> None:
        self.store.close()
        self.home.cleanup()

    @rule(target=numbers, name=st.sampled_from(["job-aaaa", "job-bbbb", "job-cccc"]))
    def submit(self, name: str) -> int:
        self.store.submit("ann", name, small_job(seed=ord(name[-1])))
        return self.known.setdefault(name, self.store.number("ann", name))

    @rule(target=attempts)
    def start(self) -> Work | None:
        number = next_turn(self.store)
        return None if number is None else self.store.start(number)

    @rule(work=attempts, how=st.sampled_from(["finish", "fail", "cancel", "die", "requeue"]))
    def report(self, work: Work | None, how: str) -> None:
        if work is None:
            return
        about = work.number, work.attempt
        if how == "finish":
            self.store.finish(*about, [CLIP])
        elif how == "die":
            self.store.worker_died(*about, "died")
        elif how == "requeue":
            self.store.requeue(*about)
        else:
            self.store.end(*about, "failed" if how == "fail" else "canceled", "")

    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        self.store.request_cancel(number)

    @rule(crashed=st.booleans())
    def restart(self, crashed: bool) -> None:
        self.store.close()
        self.store = Store(Path(self.home.name) / "jobs.sqlite")
        self.store.requeue_running(crashed)

    @invariant()
    def a_terminal_state_is_the_last_and_only_one_and_events_have_no_gap(self) -> None:
        for number in self.known.values():
            events = self.store.events(number, 0)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert all(event.state not in TERMINAL_STATES for event in events[:-1])
            assert all(one.attempt <= two.attempt for one, two in pairwise(events))
            job = self.store.job(number)
            assert job.state == events[-1].state
            assert (job.results == [CLIP]) == (job.state == "done")


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
