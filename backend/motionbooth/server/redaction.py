"""What users must not see of the server: the folders in its messages. Its admins see them."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import TypeVar

from motionbooth_protocol import messages
from motionbooth_protocol.errors import ErrorReport
from motionbooth_protocol.jobs import Job
from motionbooth_protocol.text import Text
from msgspec.structs import replace

_WITHIN = re.compile(r"(?<![\w/\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\"]+[/\\])+([^\s/\\'\"]*)")
_QUOTED = re.compile(r"(['\"])(?:[A-Za-z]:)?[/\\][^'\"]*[/\\]([^/\\'\"]*)\1")  # may contain spaces
Sentence = TypeVar("Sentence", bound=Text)


def for_user(reply: messages.AnyReply) -> messages.AnyReply:
    """The reply with the names of files alone instead of their paths."""
    match reply:
        case messages.Error():
            return replace(reply, report=without_folders(reply.report))
        case messages.Event(error=ErrorReport() as error):
            return replace(reply, error=without_folders(error))
        case messages.Snapshot():
            return replace(reply, job=_job(reply.job))
        case messages.Jobs():
            return replace(reply, jobs=[_job(job) for job in reply.jobs])
        case messages.Status():
            problems = {name: without_folders(problem) for name, problem in reply.problems.items()}
            workers = [replace(worker, device=_within(worker.device)) for worker in reply.workers]
            return replace(reply, problems=problems, workers=workers)
    return reply


def without_folders(sentence: Sentence) -> Sentence:
    return replace(sentence, values={name: _value(value) for name, value in sentence.values.items()})


def _job(job: Job) -> Job:
    return job if job.error is None else replace(job, error=without_folders(job.error))


def _value(value: str | int | float | Text) -> str | int | float | Text:
    if isinstance(value, Text):
        return without_folders(value)
    if not isinstance(value, str):
        return value
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(value).is_absolute():
            return kind(value).name or value
    return _within(value)


def _within(sentence: str) -> str:
    return _WITHIN.sub(r"\1", _QUOTED.sub(r"\1\2\1", sentence))
