from __future__ import annotations

import os
from pathlib import Path

import pytest
from motionbooth_addon._protocol.jobs import JobState
from motionbooth_addon.job_store import GuideRender, JobRecord, Render, TrainRequest
from motionbooth_addon.jobs.old_files import LEAST_AGE, remove_old_guides, remove_old_trainings


@pytest.fixture
def guides(tmp_path: Path) -> Path:
    return tmp_path / "guides"


def rendered(guides: Path, name: str, hours: float = 2) -> str:
    """A rendered guide of this age."""
    place = guides / name
    place.mkdir(parents=True)
    (place / "guide.png").write_bytes(b"pixels")
    then = place.stat().st_mtime - hours * LEAST_AGE
    os.utime(place, (then, then))
    return str(place)


def record(folder: str, shot: str = "a", state: JobState = JobState.DONE, clip: str = "") -> JobRecord:
    guide = GuideRender(folder, "Scene", (96, 64), [], 0.5, 0.3, [], clip)
    request = TrainRequest("Imp", "sks", "toy", "m")
    return JobRecord(id="x", request=request, title="t", created=1, backend="k", shot=shot, state=state, guide=guide)


def left(guides: Path) -> set[str]:
    return {place.name for place in guides.iterdir()}


def test_the_last_three_of_each_shot_are_kept(guides: Path) -> None:
    names = ["1", "2", "3", "4", "4", "5"]
    places = {name: rendered(guides, name) for name in {*names, "other", "unknown"}}
    records = [record(places["other"], "b"), *(record(places[name]) for name in names)]
    remove_old_guides(guides, records)
    assert left(guides) == {"3", "4", "5", "other"}


def test_what_unfinished_jobs_need_and_what_is_new_is_kept(guides: Path) -> None:
    """Another Blender may be about to send a job for the new one."""
    places = {name: rendered(guides, name) for name in ("1", "2", "3", "4", "5")}
    rendered(guides, "new", hours=0.5)
    states = [JobState.DONE, JobState.WAITING, JobState.DONE, JobState.DONE, JobState.DONE]
    remove_old_guides(
        guides, [record(place, state=state) for place, state in zip(places.values(), states, strict=True)]
    )
    assert left(guides) == {"2", "3", "4", "5", "new"}


def test_a_clip_of_the_users_is_never_removed(guides: Path, tmp_path: Path) -> None:
    (tmp_path / "take.mp4").write_bytes(b"clip")
    remove_old_guides(guides, [record("", clip=str(tmp_path / "take.mp4"))])
    assert (tmp_path / "take.mp4").exists()


def test_the_guide_of_an_unfinished_job_is_kept_behind_a_link(guides: Path, tmp_path: Path) -> None:
    place = rendered(guides, "1")
    (tmp_path / "link").symlink_to(guides, target_is_directory=True)
    remove_old_guides(tmp_path / "link", [record(place, state=JobState.WAITING)])
    assert left(guides) == {"1"}


def test_a_training_is_kept_as_long_as_its_job(tmp_path: Path) -> None:
    """Run Again needs its 3D object, and the panel shows its results."""
    for name in ("job", "object", "another job", "another object"):
        rendered(tmp_path, name)
    rendered(tmp_path, "new", hours=0.5)
    render = Render(str(tmp_path / "object" / "object.blend"), "Imp", 1, 128)
    request = TrainRequest("Imp", "sks", "toy", "m", render=render)
    kept = JobRecord(id="job", request=request, title="t", created=1, backend="k", shot="a", state=JobState.DONE)
    remove_old_trainings(tmp_path, [kept])
    assert left(tmp_path) == {"job", "object", "new"}
