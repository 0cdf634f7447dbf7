"""What the server and its worker process say to each other: typed msgpack, each message after its length."""

from __future__ import annotations

import struct
from typing import IO, Annotated

import msgspec
from motionbooth_protocol.jobs import Blob, JobSpec
from motionbooth_protocol.reports import PreviewReport, ProgressReport
from msgspec import Meta, Struct

_LENGTH = struct.Struct("<I")
_MAX_BYTES = 4 << 20

Number = Annotated[int, Meta(ge=0)]


class About(Struct, frozen=True, tag=True, kw_only=True):
    """One attempt at one job."""

    number: Number
    attempt: Number


class Run(About, frozen=True, tag=True):
    spec: JobSpec


class Stop(About, frozen=True, tag=True):
    """The job was canceled: stop at the next step."""


class Advanced(About, frozen=True, tag=True):
    report: ProgressReport


class Pictured(About, frozen=True, tag=True):
    report: PreviewReport


class Finished(About, frozen=True, tag=True):
    """The results are in the blob store."""

    results: list[Blob]


class Failed(About, frozen=True, tag=True):
    """`code` of a class in the protocol's errors.py; `message` is for the job's owner."""

    code: str
    message: str


class Exited(About, frozen=True, tag=True):
    """Told by an executor, not by a worker: the worker of this attempt ended by itself, was killed, or never began.

    `reason` in words for the job's owner.
    """

    reason: str


Command = Run | Stop
Report = Advanced | Pictured | Finished | Failed

_encoder = msgspec.msgpack.Encoder()
commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
reports: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)
all_reports: msgspec.msgpack.Decoder[Report | Exited] = msgspec.msgpack.Decoder(Report | Exited)


def encode(message: Command | Report | Exited) -> bytes:
    """The message alone, for a carrier that keeps messages apart by itself."""
    return _encoder.encode(message)


def write(pipe: IO[bytes], message: Command | Report) -> None:
    """Raises OSError where the other side is gone."""
    data = encode(message)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def read(pipe: IO[bytes]) -> bytes:
    """The next message's bytes, b"" at the end of the pipe or where what comes is no message."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return b""
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length) if length <= _MAX_BYTES else b""
    return data if len(data) == length else b""
