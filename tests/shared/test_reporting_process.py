"""Real programs that report, fail, crash, hang and are interrupted."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest
from motionbooth_protocol import reporting_process
from motionbooth_protocol.errors import Canceled, InvalidInput, JobFailed
from motionbooth_protocol.reporting_process import ReportingProcess
from motionbooth_protocol.reports import ProgressReport
from motionbooth_protocol.text import Text
from refused import refused

IMPORTS = """
import os, signal, sys, time
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.reporting_process import ReportWriter
from motionbooth_protocol.reports import ProgressReport
from motionbooth_protocol.text import Text
writer = ReportWriter(sys.stdout)
"""


def program(folder: Path, script: str) -> ReportingProcess:
    return ReportingProcess([sys.executable, "-c", IMPORTS + script], folder / "program.log")


def test_reports_are_read_and_all_other_output_is_in_the_log(tmp_path: Path) -> None:
    seen: list[ProgressReport] = []
    script = """
print("chatter", flush=True)
print('{"stage": 5}', flush=True)
print("17", flush=True)
sys.stdout.buffer.write(b'"\\xff"\\n')
sys.stdout.flush()
writer.progress(ProgressReport("sampling", 1, 2, 3.5, Text("Imp")))
print("a warning", file=sys.stderr, flush=True)
writer.done({"clip": "é.mp4"})
"""
    assert program(tmp_path, script).run(seen.append) == {"clip": "é.mp4"}
    assert seen == [ProgressReport("sampling", 1, 2, 3.5, Text("Imp"))]
    lines = (tmp_path / "program.log").read_bytes().splitlines()
    assert sorted(lines) == [b'"\xff"', b"17", b"a warning", b"chatter", b'{"stage": 5}']


def test_a_reported_error_keeps_its_class_and_sentence(tmp_path: Path) -> None:
    script = 'writer.failed(InvalidInput("Scene {scene} has no camera.", code="no_camera", scene="a {b}"))'
    with pytest.raises(InvalidInput) as caught:
        program(tmp_path, script).run(print)
    assert caught.value.text == Text("Scene {scene} has no camera.", {"scene": "a {b}"})


def test_a_crash_is_a_failed_job_with_the_last_line_of_the_log(tmp_path: Path) -> None:
    script = 'print("the GPU is on fire", flush=True); os.kill(os.getpid(), signal.SIGKILL)'
    with refused(JobFailed, status=-9, reason="the GPU is on fire", log=str(tmp_path / "program.log")):
        program(tmp_path, script).run(print)


def test_an_exception_in_the_reader_ends_the_program(tmp_path: Path) -> None:
    def refuse(report: ProgressReport) -> None:
        raise ValueError(report.stage)

    script = 'print(os.getpid(), flush=True); writer.progress(ProgressReport("a", 0, 0)); time.sleep(600)'
    with pytest.raises(ValueError, match="a"):
        program(tmp_path, script).run(refuse)
    pid = int((tmp_path / "program.log").read_text().split()[0])
    with pytest.raises(ProcessLookupError):
        reporting_process.os.kill(pid, 0)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_program_is_stopped_from_another_thread_even_if_it_ignores_the_interrupt(
    deaf: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting_process, "STOP_SECONDS", 0.5)
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" if deaf else ""
    process = program(tmp_path, ignore + 'writer.progress(ProgressReport("ready", 0, 0))\ntime.sleep(600)')
    ready = threading.Event()

    def stop() -> None:
        ready.wait(60)
        process.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    began = time.monotonic()
    with pytest.raises(Canceled):
        process.run(lambda report: ready.set())
    stopper.join()
    assert time.monotonic() - began < 60
    with pytest.raises(Canceled):
        process.run(print)  # it does not start again
