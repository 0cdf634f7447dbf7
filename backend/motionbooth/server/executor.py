"""The interface between the scheduler and the workers, whether on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import zmq
from motionbooth_protocol.text import Text

from motionbooth.server.attempts import Attempt, AttemptId
from motionbooth.server.worker_pipe import Report


@dataclass(frozen=True)
class Device:
    """What one worker computes on. `environment` makes its process use this device alone.

    `name` is also the name of the worker's slot, such as gpu-0; `description` is for people.
    """

    name: str
    description: str
    environment: Mapping[str, str] = field(default_factory=dict)


class Executor(Protocol):
    """Runs attempts in worker slots, one attempt in a slot at a time.

    `wake` is readable whenever `receive` has something. `outlives_server`: attempts continue after `close`, and `adopt`
    finds them again.
    """

    wake: zmq.Socket[bytes]
    outlives_server: bool

    @property
    def problem(self) -> Text | None:
        """Why no worker can be reached, for people; None if they can."""

    def devices(self) -> list[Device]:
        """The device of each slot, idle or not."""

    def idle(self) -> list[str]:
        """The slots in which an attempt can start now."""

    def adopt(self) -> dict[str, AttemptId] | None:
        """After the workers were reached, for the first time or again: the attempts that still run there, or have
        reports waiting, by slot. All others are lost. None: nothing new since the last call.
        """

    def start(self, slot: str, attempt: Attempt) -> None:
        """Run an attempt in an idle slot. Raises OSError if no process can be started."""

    def cancel(self, id: AttemptId, grace: float) -> None:
        """Ask the attempt to stop; after `grace` seconds its process is killed."""

    def receive(self) -> list[Report]:
        """The workers' reports since the last call."""

    def tick(self) -> None:
        """Housekeeping, called by the server's loop."""

    def close(self) -> None:
        """Shut down in good order."""


# Arguments: ZeroMQ's context, the backend's folder, and the command that makes a process a worker of it.
MakeExecutor = Callable[[zmq.Context[zmq.Socket[bytes]], Path, list[str]], Executor]
