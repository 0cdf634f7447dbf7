"""Malformed messages, as an attacker or a broken program would send them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
from motionbooth_protocol import messages
from motionbooth_protocol.codec import encode
from motionbooth_protocol.jobs import Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.limits import CHUNK_BYTES, MAX_HEADER_BYTES, PROTOCOL_VERSION

from motionbooth_lab.rig.backend import small_job

_SHA = "0123456789abcdef" * 4
# Edge cases of msgpack: numbers, lengths and nesting.
_EDGES = [
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + b"\x00" * 7, b"\xcb\x7f\xf0" + b"\x00" * 6, b"\xcb\x7f\xf8" + b"\x00" * 6,
    b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 200,
    b"\xc1", b"\xc0", b"\xa2\xff\xfe", b"\xd4\x01\x00", b"\xc7\x08\xff" + b"\x00" * 8,
]  # fmt: skip


def corpus() -> list[bytes]:
    """A valid header of each request."""
    train = TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", [Picture(_SHA)]), model="small")
    requests: list[messages.AnyRequest] = [
        messages.Hello(id=1, version=PROTOCOL_VERSION),
        messages.Submit(id=2, job="job-00001", spec=small_job("steps=1")),
        messages.Submit(id=3, job="job-00002", spec=train),
        messages.Attach(id=4, job="job-00001"),
        messages.Get(id=5, job="job-00001"),
        messages.GetSpec(id=6, job="job-00001"),
        messages.ListJobs(id=7),
        messages.ListSubjects(id=8),
        messages.Cancel(id=9, job="job-00001"),
        messages.Forget(id=10, job="job-00001"),
        messages.GetStatus(id=11),
        messages.Put(id=12, sha256=_SHA, size=10),
        messages.PutChunk(id=13, sha256=_SHA, offset=0),
        messages.Fetch(id=14, sha256=_SHA, offset=0),
        messages.Ping(id=15),
        messages.Bye(id=16),
    ]
    return [encode(request)[0] for request in requests]


def foreign_messages(seed: int) -> Iterator[list[bytes]]:
    """An endless stream of messages (lists of frames), the same for the same seed."""
    rng = random.Random(seed)
    headers = corpus()
    while True:
        header = corrupted(rng, rng.choice(headers))
        extra = rng.random()
        if extra < 0.90:
            yield [header]
        elif extra < 0.99:
            yield [header, rng.randbytes(rng.choice((0, 1, 100, 4000)))]
        elif extra < 0.9995:
            yield [header] + [b"x"] * rng.randrange(2, 40)
        else:
            yield [header, bytes(rng.choice((CHUNK_BYTES, CHUNK_BYTES + 1, MAX_HEADER_BYTES)))]


def corrupted(rng: random.Random, header: bytes) -> bytes:
    """The message corrupted in one of several ways. One in twenty is unchanged."""
    data, place = bytearray(header), rng.randrange(len(header))
    match rng.randrange(20):
        case 0:
            return header
        case 1 | 2 | 3 | 4:
            data[place] = rng.randrange(256)
        case 5 | 6:
            data[place] ^= 1 << rng.randrange(8)
        case 7 | 8:
            del data[place:]
        case 9 | 10:
            data[place:place] = rng.randbytes(rng.randrange(1, 9))
        case 11 | 12 | 13 | 14:
            data[place : place + rng.randrange(10)] = rng.choice(_EDGES)
        case 15:
            data += header
        case 16:
            return rng.randbytes(rng.randrange(300))
        case _:
            return _with_foreign_field(rng, header)
    return bytes(data)


def _with_foreign_field(rng: random.Random, header: bytes) -> bytes:
    """The message with one field's value replaced by one of another type or size."""
    fields = msgspec.msgpack.decode(header)
    values: list[object] = [None, True, -1, 2**53, 2**64 - 1, 1e308, "", "x" * 5000, "../../etc/passwd", b"\0" * 40]
    fields[rng.choice(list(fields))] = rng.choice([*values, [], {}, [[]] * 9])
    return msgspec.msgpack.encode(fields)
