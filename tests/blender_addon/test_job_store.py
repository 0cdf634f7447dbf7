from __future__ import annotations

from pathlib import Path

from motionbooth_addon._protocol.jobs import Blob
from motionbooth_addon.job_store import JobRecord, JobStore, Render, TrainRequest


def make_record(job: str, created: float = 1.0) -> JobRecord:
    request = TrainRequest(
        name="Imp", token="sks", class_word="toy", model="m", render=Render("a.blend", "Imp", 1, 128)
    )
    return JobRecord(id=job, request=request, title="shot", created=created, backend="key")


def test_records_are_read_back_oldest_first(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    second, first = make_record("second-1", 2.0), make_record("first-11", 1.0)
    first.results = [Blob("subject", "a" * 64, 3)]
    store.put(second)
    store.put(first)
    again = JobStore(tmp_path).records
    assert list(again.values()) == [first, second]


def test_a_removed_record_is_not_read_back(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    store.put(make_record("gone-job"))
    store.remove("gone-job")
    store.remove("gone-job")
    assert JobStore(tmp_path).records == {}
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_another_blender_has_removed_is_not_written_back(tmp_path: Path) -> None:
    store, other = JobStore(tmp_path), JobStore(tmp_path)
    store.put(record := make_record("gone-job"))
    other.remove("gone-job")
    record.placed = True
    store.put(record)
    assert JobStore(tmp_path).records == {}


def test_a_corrupt_file_loses_only_its_own_job(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    store.put(make_record("good-job"))
    (tmp_path / "bad.json").write_text("{")
    assert list(JobStore(tmp_path).records) == ["good-job"]
