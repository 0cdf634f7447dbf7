from __future__ import annotations

import pytest
from motionbooth.cli.tables import jobs_table, status_view
from motionbooth.progress.display import duration
from motionbooth_protocol.jobs import Job
from motionbooth_protocol.messages import Status, WorkerInfo
from motionbooth_protocol.reports import ProgressReport
from motionbooth_protocol.text import Text
from rich.console import Console, RenderableType

STATUS = Status(
    server="MotionBooth on box", version="1", uptime=3700, queued=3, running=1, done=10, failed=2, canceled=0,
    sessions=4, disk_free=5_000_000_000, store_bytes=1_500_000,
    problems={"disk_full": Text.of("The disk is full until {needed:.0f} MB are free.", needed=64.0)},
    workers=[
        WorkerInfo(name="gpu-0", state="running", device="GPU 0: A100, 80 GB", model="zeroscope", job="0123456789",
                   owner="ann", kind="generate", progress=ProgressReport("sampling", 5, 20, 90)),
        WorkerInfo(name="gpu-1", state="idle", device="GPU 1: A100, 80 GB"),
    ],
)  # fmt: skip


def printed(view: RenderableType) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def test_the_status_shows_counts_space_and_workers() -> None:
    text = printed(status_view(STATUS))
    for words in (
        "up for 1 h 01 min",
        "3 queued",
        "2 failed",
        "1.5 MB",
        "5.0 GB",
        "01234567",
        "ann",
        "sampling 5/20",
        "until 64 MB are free",
    ):
        assert words in text
    assert "1 min 30 s" in text
    assert "idle" in text


def test_jobs_are_listed_with_state_and_error_without_markup() -> None:
    job = Job(id="abcdefgh1", kind="train", state="failed", created=1000, updated=1100, error="[red]no dog[/red]",
              name="[b]Rex", model="toybox", owner="ann")  # fmt: skip
    text = printed(jobs_table([job], now=5000, with_owners=True))
    for words in ("abcdefgh", "[b]Rex", "[red]no dog[/red]", "1 min 40 s", "failed", "ann"):
        assert words in text


@pytest.mark.parametrize(
    ("seconds", "words"), [(42.9, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (442_800, "5 d 3 h")]
)
def test_durations_as_text(seconds: float, words: str) -> None:
    assert duration(seconds) == words
