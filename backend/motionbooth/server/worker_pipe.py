"""The messages between an executor and its worker process: typed msgpack, each one after its length."""

from __future__ import annotations

import os
import struct
from typing import IO

import msgspec
from motionbooth_protocol.errors import ErrorReport
from motionbooth_protocol.jobs import Blob
from motionbooth_protocol.reports import PreviewReport, ProgressReport
from motionbooth_protocol.text import Text
from msgspec import Struct

from motionbooth.server.attempts import Attempt, AttemptId

_LENGTH = struct.Struct("<I")
_MAX_BYTES = 4 << 20
_MOST_LEVELS = 100  # of texts within texts


class AboutAttempt(Struct, frozen=True, tag=True):
    id: AttemptId


class Stop(AboutAttempt, frozen=True, tag=True):
    """The job was canceled: stop at the next step."""


class Alive(AboutAttempt, frozen=True, tag=True):
    """Sent every few seconds by a thread of the worker, while the attempt runs."""


class Progressed(AboutAttempt, frozen=True, tag=True):
    report: ProgressReport


class Previewed(AboutAttempt, frozen=True, tag=True):
    report: PreviewReport


class Finished(AboutAttempt, frozen=True, tag=True):
    """The results are in the job's scratch folder; see worker.result_file."""

    results: list[Blob]


class Failed(AboutAttempt, frozen=True, tag=True):
    error: ErrorReport


class Exited(AboutAttempt, frozen=True, tag=True):
    """From the executor, not from a worker: the worker of this attempt ended, was killed, or never started."""

    error: ErrorReport


class Lost(AboutAttempt, frozen=True, tag=True):
    """From the executor: the attempt ended, or never started, without a fault of its job."""

    error: ErrorReport


Command = Attempt | Stop
WorkerMessage = Progressed | Previewed | Finished | Failed | Alive
FinalReport = Finished | Failed | Exited | Lost
Report = Progressed | Previewed | FinalReport

_encoder = msgspec.msgpack.Encoder()
command_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_worker_messages: msgspec.msgpack.Decoder[WorkerMessage] = msgspec.msgpack.Decoder(WorkerMessage)
report_decoder: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def decode_worker_message(data: bytes) -> WorkerMessage:
    """Raises many an error, as msgspec does, if these bytes are not one, and ValueError for texts within texts that
    could not be passed on.
    """
    message = _worker_messages.decode(data)
    text: Text | None = message.error if isinstance(message, Failed) else None
    if isinstance(message, Progressed):
        text = message.report.note
    if text is not None and not _is_shallow(text, _MOST_LEVELS):
        raise ValueError(f"the text has more than {_MOST_LEVELS} levels")
    return message


def _is_shallow(text: Text, levels: int) -> bool:
    return levels > 0 and all(_is_shallow(one, levels - 1) for one in text.values.values() if isinstance(one, Text))


def encode(message: Struct) -> bytes:
    """The message without its length, for a carrier that keeps messages apart."""
    return _encoder.encode(message)


def write(pipe: IO[bytes], message: Struct) -> None:
    """Raises OSError if the other side is gone."""
    data = encode(message)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def read(pipe: IO[bytes]) -> bytes:
    """The next message's bytes; b"" at the end of the pipe, or if what arrives is not a message."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return b""
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length) if length <= _MAX_BYTES else b""
    return data if len(data) == length else b""


def of_this_process() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes on standard input and output of a child process, which are replaced: libraries may print to standard
    output and read standard input, and neither may reach the pipes.
    """
    commands = os.fdopen(os.dup(0), "rb")
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return commands, reports
