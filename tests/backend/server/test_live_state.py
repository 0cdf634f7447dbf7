"""Reports of running jobs: which ones are kept, and which are published."""

from motionbooth.server.attempts import JobNumber
from motionbooth.server.live_state import LiveState, Update
from motionbooth_protocol.reports import PreviewReport, ProgressReport

ONE, TWO = JobNumber(1), JobNumber(2)
PREVIEW = PreviewReport("sampling", 1, 4, 64, 48, b"picture")


def step(number: int) -> ProgressReport:
    return ProgressReport("sampling", number, 4)


def test_of_each_job_and_kind_only_the_latest_report_is_published() -> None:
    live = LiveState()
    for update in (Update(ONE, step(1)), Update(TWO, step(1)), Update(ONE, PREVIEW), Update(ONE, step(2))):
        live.add(update)
    assert live.take_updates() == [Update(TWO, step(1)), Update(ONE, PREVIEW), Update(ONE, step(2))]
    assert live.take_updates() == []
    assert (live.progress, live.previews) == ({ONE: step(2), TWO: step(1)}, {ONE: PREVIEW})


def test_a_change_of_state_drops_the_reports_of_the_state_before() -> None:
    live = LiveState()
    for update in (Update(ONE, step(1)), Update(ONE, PREVIEW), Update(TWO, step(3)), Update(ONE)):
        live.add(update)
    assert (live.progress, live.previews) == ({TWO: step(3)}, {})
    assert live.take_updates()[-1] == Update(ONE)


def test_reports_of_jobs_that_do_not_run_are_dropped() -> None:
    live = LiveState()
    live.add(Update(ONE, step(1)))
    live.add(Update(TWO, PREVIEW))
    live.keep_only({TWO})
    assert (live.progress, live.previews) == ({}, {TWO: PREVIEW})
