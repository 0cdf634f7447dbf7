"""The messages between the server and its Ray driver, on the driver's pipes. The driver sends Report, too."""

from __future__ import annotations

import msgspec
from motionbooth_protocol.errors import ErrorReport
from msgspec import Struct

from motionbooth.server.attempts import Attempt, AttemptId
from motionbooth.server.ray_cluster import Cluster
from motionbooth.server.worker_pipe import Report


class DriverSetup(Struct, frozen=True):
    """The driver's argument, as JSON. `command` is Python and the arguments that make it a worker, which must be valid
    on every box, as must the folder of `log`.
    """

    command: list[str]
    log: str
    cluster: Cluster


class StartIn(Struct, frozen=True, tag=True):
    """Run an attempt in a slot."""

    slot: str
    attempt: Attempt


class Cancel(Struct, frozen=True, tag=True):
    id: AttemptId
    grace: float  # seconds


class Leave(Struct, frozen=True, tag=True):
    """Shut down in good order: end the idle workers."""


class Connected(Struct, frozen=True, tag=True):
    """The cluster was reached. `attempts`: those that run there, or have reports waiting, by slot."""

    attempts: dict[str, AttemptId]


class Refused(Struct, frozen=True, tag=True):
    """The cluster cannot be used; the driver exits."""

    error: ErrorReport


class SlotState(Struct, frozen=True):
    name: str
    location: str  # for people
    is_ready: bool


class Slots(Struct, frozen=True, tag=True):
    """All slots, after a change."""

    slots: list[SlotState]


ToDriver = StartIn | Cancel | Leave
FromDriver = Connected | Refused | Slots | Report

setup_decoder = msgspec.json.Decoder(DriverSetup)
to_driver_decoder: msgspec.msgpack.Decoder[ToDriver] = msgspec.msgpack.Decoder(ToDriver)
from_driver_decoder: msgspec.msgpack.Decoder[FromDriver] = msgspec.msgpack.Decoder(FromDriver)
