from __future__ import annotations

import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import motionbooth.server
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from motionbooth.server.attempts import Attempt, JobNumber
from motionbooth.server.blobs import Blobs
from motionbooth.server.database import SCHEMA_VERSION
from motionbooth.server.fair_share import FairShare
from motionbooth.server.job_transitions import MAX_WORKER_DEATHS
from motionbooth.server.retention import Retention
from motionbooth.server.store import Store
from motionbooth_protocol.errors import Conflict, ErrorReport, InvalidInput, MotionBoothError, NotFound
from motionbooth_protocol.jobs import TERMINAL_STATES, Blob, JobState
from motionbooth_protocol.text import Text
from refused import refused
from running_backend import small_job

CLIP = Blob("clip", "a" * 64, 1000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def submitted(
    store: Store, job_id: str = "job-00001", seed: int = 0, priority: int = 0, owner: str = "ann"
) -> JobNumber:
    store.transitions.submit(owner, job_id, small_job(seed=seed), priority)
    return store.queries.number(owner, job_id)


def next_job(store: Store) -> JobNumber | None:
    """The job that a server which has just started would assign first."""
    assignment = FairShare(store.database).next(["here"])
    return None if assignment is None else assignment.job_number


def test_results_from_the_cache_count_for_the_model_version_that_made_them(tmp_path: Path) -> None:
    version = ["one"]
    store = Store(tmp_path / "jobs.sqlite", lambda model: version[0])
    for number in (1, 2):
        store.transitions.submit("ann", f"job-{number:05}", small_job(seed=1))
    version[0] = "two"
    store.transitions.finish(store.transitions.start(JobNumber(1)).id, [CLIP])
    store.transitions.complete_from_cache(JobNumber(2), [CLIP])
    key = store.queries.cache_key(JobNumber(2))
    assert store.transitions.find_duplicate(key, JobState.DONE) == 2
    version[0] = "one"
    assert store.transitions.find_duplicate(key, JobState.DONE) is None
    store.close()


def test_a_long_queue_hides_neither_running_nor_ended_jobs(store: Store) -> None:
    for name in ("job-done", "job-runs"):
        attempt = store.transitions.start(submitted(store, name))
        if name == "job-done":
            store.transitions.finish(attempt.id, [CLIP])
    for index in range(20):
        submitted(store, f"job-{index:05}", seed=index, priority=index % 2)
    shown = store.queries.jobs_by_state(3)
    assert [job.id for job in shown] == ["job-runs", "job-00001", "job-00003", "job-00005", "job-done"]


def test_the_attempt_is_on_disk_before_anything_runs(store: Store, tmp_path: Path) -> None:
    number = store.transitions.start(submitted(store)).id.job_number
    store.close()
    again = Store(tmp_path / "jobs.sqlite")
    assert (again.queries.job(number).state, again.queries.job(number).attempt) == ("running", 1)
    again.close()


def test_a_report_of_an_older_attempt_changes_nothing(store: Store) -> None:
    transitions = store.transitions
    stale = transitions.start(submitted(store)).id
    transitions.requeue_running()
    current = transitions.start(stale.job_number).id
    assert not transitions.finish(stale, [CLIP])
    assert not transitions.end(stale, JobState.FAILED, "too late")
    assert not transitions.worker_died(stale, ErrorReport("too late"))
    assert store.queries.state(stale.job_number) == "running"
    assert transitions.finish(current, [CLIP])
    assert not transitions.end(current, JobState.CANCELED)
    assert store.queries.job(stale.job_number).results == [CLIP]


def test_a_job_that_is_being_canceled_never_runs_again(store: Store) -> None:
    id = store.transitions.start(submitted(store)).id
    assert store.transitions.request_cancel(id.job_number).state == "running"
    store.transitions.worker_died(id, ErrorReport("killed"))
    assert store.queries.state(id.job_number) == "canceled"


def test_a_cancel_request_outlives_the_server(store: Store, tmp_path: Path) -> None:
    number = store.transitions.start(submitted(store)).id.job_number
    store.transitions.request_cancel(number)
    store.close()
    again = Store(tmp_path / "jobs.sqlite")
    again.transitions.requeue_running()
    assert again.queries.state(number) == "canceled"
    again.close()


def test_a_job_whose_workers_die_is_given_up_after_a_few(store: Store) -> None:
    number = submitted(store)
    for _ in range(MAX_WORKER_DEATHS):
        store.transitions.worker_died(store.transitions.start(number).id, ErrorReport("The worker died."))
    assert store.queries.state(number) == "failed"
    assert store.queries.job(number).error.values == {"reason": Text("The worker died."), "count": MAX_WORKER_DEATHS}


def test_servers_that_end_while_it_runs_are_not_counted_against_a_job(store: Store) -> None:
    number = submitted(store)
    for _ in range(30):
        store.transitions.start(number)
        store.transitions.requeue_running()
    assert store.queries.state(number) == "queued"


def test_results_are_reused_for_the_same_spec_owner_and_model_version_only(store: Store, tmp_path: Path) -> None:
    find = store.transitions.find_duplicate
    id = store.transitions.start(submitted(store)).id
    key = store.queries.cache_key(id.job_number)
    assert (find(key, JobState.DONE), find(key, JobState.RUNNING)) == (None, id.job_number)
    store.transitions.finish(id, [CLIP])
    assert (find(key, JobState.DONE), find(key, JobState.RUNNING)) == (id.job_number, None)
    assert store.queries.results(id.job_number) == [CLIP]
    assert find(key._replace(digest="another"), JobState.DONE) is None
    assert find(key._replace(owner="bob"), JobState.DONE) is None
    store.close()
    newer = Store(tmp_path / "jobs.sqlite", model_version=lambda model: "99.0")
    assert newer.transitions.find_duplicate(key, JobState.DONE) is None
    newer.close()


def test_a_coalesced_job_is_assignable_again_as_soon_as_the_running_one_stops(store: Store) -> None:
    transitions = store.transitions
    running = transitions.start(submitted(store)).id
    coalesced = submitted(store, "job-00002")
    transitions.coalesce(coalesced, running.job_number)
    assert next_job(store) is None
    transitions.requeue(running)
    assert next_job(store) == running.job_number
    transitions.start(running.job_number)
    assert next_job(store) == coalesced
    transitions.coalesce(coalesced, running.job_number)
    transitions.requeue_running()
    assert next_job(store) == running.job_number


def test_no_statement_has_the_numbered_placeholders_that_python_3_14_refuses() -> None:
    sources = list(Path(motionbooth.server.__file__).parent.glob("*.py"))
    assert len(sources) > 30
    assert [path.name for path in sources if re.search(r"\?\d", path.read_text("utf-8"))] == []


def test_two_owners_may_use_the_same_id_without_seeing_each_other(store: Store) -> None:
    anns, bobs = submitted(store, owner="ann"), submitted(store, seed=1, owner="bob")
    assert anns != bobs
    assert [job.id for _, job in store.queries.jobs("ann", 10)] == ["job-00001"]
    with pytest.raises(NotFound):
        store.queries.number("eve", "job-00001")


def test_the_number_of_a_forgotten_job_is_never_used_again(store: Store, tmp_path: Path) -> None:
    first = store.transitions.start(submitted(store)).id
    store.transitions.end(first, JobState.FAILED)
    Retention(store, Blobs(tmp_path)).forget(first.job_number)
    assert submitted(store, "job-00002") > first.job_number
    assert not store.transitions.finish(first, [CLIP])


def test_a_large_store_answers_as_fast_as_a_small_one(store: Store, tmp_path: Path) -> None:
    """Of one owner, as after months of work; none of these may hold up the server's one loop."""
    with store.database.transaction():
        for index in range(5000):
            clip = Blob("clip", f"{index:064}", 1000)
            store.transitions.submit("ann", f"job-{index:05}", small_job(seed=index), cached=[clip])
    retention = Retention(store, Blobs(tmp_path))
    for question in (
        lambda: store.queries.unfinished_count("ann"),
        lambda: list(store.queries.jobs("ann", 100)),
        lambda: retention.make_room("ann", 1),  # nothing was downloaded: it looks at every job
        lambda: store.queries.number("admin", "job-00001", any_owner=True),
        lambda: store.ownership.total_bytes(),
    ):
        began = time.process_time()
        question()
        assert time.process_time() - began < 0.1


def test_a_second_store_on_the_same_file_is_refused_and_the_first_continues(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        Store(tmp_path / "jobs.sqlite")
    submitted(store)


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_store_of_another_version_is_refused_and_left_alone(tmp_path: Path, version: int) -> None:
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with refused(InvalidInput, found=version, known=SCHEMA_VERSION):
        Store(tmp_path / "jobs.sqlite")
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    assert database.execute("PRAGMA user_version").fetchone() == (version,)
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == []
    database.close()


def test_a_file_that_is_not_a_store_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"no database at all" * 1000)
    with refused(MotionBoothError, reason=...):
        Store(tmp_path / "jobs.sqlite")


@pytest.mark.parametrize("trace", ["keys", "blobs"])
def test_a_store_that_was_emptied_is_refused_and_a_first_start_that_was_cut_short_is_not(
    tmp_path: Path, trace: str
) -> None:
    path = tmp_path / "jobs.sqlite"
    path.touch()
    Store(path).close()
    (tmp_path / trace).mkdir()
    path.write_bytes(b"")
    with refused(InvalidInput, path=str(path), how="empty (0 bytes)"):
        Store(path)
    assert path.stat().st_size == 0
    path.unlink()  # as the message says
    Store(path).close()


def test_the_log_of_a_store_that_is_missing_is_not_thrown_away(store: Store, tmp_path: Path) -> None:
    submitted(store)
    (tmp_path / "copy").mkdir()
    log = tmp_path / "copy" / "jobs.sqlite-wal"
    log.write_bytes((tmp_path / "jobs.sqlite-wal").read_bytes())
    size = log.stat().st_size
    with refused(InvalidInput, path=str(tmp_path / "copy" / "jobs.sqlite"), how="missing"):
        Store(tmp_path / "copy" / "jobs.sqlite")
    assert log.stat().st_size == size > 0


def test_damage_in_any_page_is_a_sentence_with_what_to_do(tmp_path: Path) -> None:
    """Whatever first reads the page; a page that nothing reads has no effect."""
    path = tmp_path / "jobs.sqlite"
    store = Store(path)
    with store.database.transaction():
        for number in range(100):
            submitted(store, f"job-{number:05}", seed=number)
    store.close()
    sound = path.read_bytes()
    found = []
    for page in range(1, len(sound) // 4096):
        path.write_bytes(sound[: page * 4096] + b"\xff" * 4096 + sound[(page + 1) * 4096 :])
        try:
            store = Store(path)
            try:
                store.transitions.requeue_running()
                list(store.queries.jobs("ann", 500))
                store.transitions.start(JobNumber(50))
            finally:
                store.close()
        except MotionBoothError as error:
            found.append(str(error))
    assert len(found) > 3
    assert all("restore them from a backup" in sentence for sentence in found)


def test_a_clock_that_jumps_a_day_changes_no_order_and_ends_no_job(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submitted(store, "job-first")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    second = submitted(store, "job-second", seed=1)
    assert next_job(store) == first
    assert [job.id for _, job in store.queries.jobs("ann", 10)] == ["job-second", "job-first"]
    assert store.queries.state(second) == "queued"


class AnyOrder(RuleBasedStateMachine):
    """Jobs submitted, run, lost, canceled and reported, early or late, in any order, across restarts."""

    numbers = Bundle("numbers")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.home.name) / "jobs.sqlite")
        self.known: dict[str, JobNumber] = {}

    def teardown(self) -> None:
        self.store.close()
        self.home.cleanup()

    @rule(target=numbers, name=st.sampled_from(["job-aaaa", "job-bbbb", "job-cccc"]))
    def submit(self, name: str) -> JobNumber:
        self.store.transitions.submit("ann", name, small_job(seed=ord(name[-1])))
        return self.known.setdefault(name, self.store.queries.number("ann", name))

    @rule(target=attempts)
    def start(self) -> Attempt | None:
        number = next_job(self.store)
        return None if number is None else self.store.transitions.start(number)

    @rule(attempt=attempts, how=st.sampled_from(["finish", "fail", "cancel", "die", "requeue"]))
    def report(self, attempt: Attempt | None, how: str) -> None:
        if attempt is None:
            return
        if how == "finish":
            self.store.transitions.finish(attempt.id, [CLIP])
        elif how == "die":
            self.store.transitions.worker_died(attempt.id, ErrorReport("died"))
        elif how == "requeue":
            self.store.transitions.requeue(attempt.id)
        else:
            self.store.transitions.end(attempt.id, JobState.FAILED if how == "fail" else JobState.CANCELED)

    @rule(number=numbers)
    def cancel(self, number: JobNumber) -> None:
        self.store.transitions.request_cancel(number)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store(Path(self.home.name) / "jobs.sqlite")
        self.store.transitions.requeue_running()

    @invariant()
    def a_terminal_state_is_the_last_and_only_one_and_events_have_no_gap(self) -> None:
        for number in self.known.values():
            events = self.store.queries.events(number, 0)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert all(event.state not in TERMINAL_STATES for event in events[:-1])
            assert all(one.attempt <= two.attempt for one, two in pairwise(events))
            job = self.store.queries.job(number)
            assert job.state == events[-1].state
            assert (job.results == [CLIP]) == (job.state == JobState.DONE)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
