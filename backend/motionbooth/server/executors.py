"""Where the jobs of a backend run, as `motionbooth serve` chooses it: on this machine, or on a Ray cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import zmq

from motionbooth.server.devices import local_places
from motionbooth.server.keys import server_keys
from motionbooth.server.local_executor import Executor, LocalExecutor
from motionbooth.server.worker import log_file

# The backend's folder, and the command that makes a process a worker of it.
MakeExecutor = Callable[[zmq.Context[zmq.Socket[bytes]], Path, list[str]], Executor]


def here(workers: int | None = None) -> MakeExecutor:
    """One worker for each GPU of this machine, or `workers` on its CPU; see local_places."""

    def make(context: zmq.Context[zmq.Socket[bytes]], home: Path, command: list[str]) -> Executor:
        return LocalExecutor(context, command, log_file(home), local_places(workers))

    return make


def on_ray(address: str, workers: int | None = None, gpus_each: float | None = None) -> MakeExecutor:
    """On the boxes of the cluster at `address`; see ray_executor.Cluster."""

    def make(context: zmq.Context[zmq.Socket[bytes]], home: Path, command: list[str]) -> Executor:
        from motionbooth.server.ray_executor import Cluster, RayExecutor  # Ray need not be installed for the other way

        backend = hashlib.sha256(server_keys(home).public.encode()).hexdigest()[:12]
        return RayExecutor(
            context, command, log_file(home), Cluster(address, f"motionbooth-{backend}", workers, gpus_each)
        )

    return make
