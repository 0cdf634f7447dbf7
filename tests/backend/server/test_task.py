from __future__ import annotations

import logging
import time

import pytest
from motionbooth.server.task import Task
from motionbooth_protocol.errors import Conflict, OutOfSpace
from motionbooth_protocol.text import Text
from running_backend import wait_until


class Part:
    """A part of a server that raises `error` as long as there is one."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.calls = 0

    def tick(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


def test_a_part_that_fails_is_reported_tried_again_after_a_pause_and_forgotten_when_it_recovers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    problems: dict[str, Text] = {}
    part = Part(ZeroDivisionError("an internal detail"))
    task = Task("cleaner", part.tick, problems)
    with caplog.at_level(logging.ERROR):
        task()
        task()
    assert part.calls == 1, "it pauses"
    assert "ZeroDivisionError" in caplog.text
    assert problems["cleaner"].values == {"part": "cleaner", "kind": "ZeroDivisionError"}, "no internal detail"
    time.sleep(0.15)
    task()
    assert part.calls == 2
    part.error = None

    def recovers() -> bool:
        task()
        return not problems

    wait_until(recovers, 5)


def test_the_sentence_of_a_known_error_is_the_problem_and_a_full_disk_is_reported_elsewhere() -> None:
    problems: dict[str, Text] = {}
    Task("a", Part(Conflict("The store is {state}.", state="damaged")).tick, problems)()
    Task("b", Part(OutOfSpace("full")).tick, problems)()
    assert {name: str(text) for name, text in problems.items()} == {"a": "The store is damaged."}
