"""Which Ray cluster a backend uses, and how many workers fit there."""

from __future__ import annotations

import logging
import re
import signal
import socket
from contextlib import suppress
from typing import Any

from motionbooth_protocol.errors import InvalidInput, Unreachable
from msgspec import Struct

_SECONDS_TO_CONNECT = 5.0


class Cluster(Struct, frozen=True):
    """`address` as in ray.init ("auto", "10.0.0.1:6379", "ray://..."); `workers` None: one for each GPU.

    `namespace` keeps the actors of one backend apart from those of others.
    """

    address: str
    namespace: str
    workers: int | None = None
    gpus_each: float | None = None  # None: 1 if the cluster has GPUs, otherwise 0
    seconds_before_unfit_retry: float = 30.0  # on a box that cannot work
    seconds_between_counts: float = 5.0  # of the cluster's boxes


class Room(Struct, frozen=True):
    """What the cluster has room for: `workers` in all on `boxes` boxes, with `gpus_each` GPUs for each."""

    workers: int
    gpus_each: float
    boxes: int

    @property
    def workers_on_box(self) -> int:
        """How many share the cores of a box."""
        return 1 if self.gpus_each else -(-self.workers // max(1, self.boxes))


def connected(cluster: Cluster) -> Any:
    """The module `ray`, connected to the cluster. Raises Unreachable."""
    import ray

    before = signal.getsignal(signal.SIGTERM)
    try:
        _check_address(cluster.address)
        ray.init(address=cluster.address, namespace=cluster.namespace, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise Unreachable(
            "No Ray cluster answers at {address} ({reason}). Start one with `ray start --head`, or give the address "
            "of a running one with --ray-address.",
            address=cluster.address,
            reason=str(error).partition("\n")[0],
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray installs its own handler
    return ray


def head_answers(address: str) -> bool:
    """Whether the cluster's head accepts connections."""
    with suppress(OSError):
        _check_address(address)
        return True
    return False


def head_address(ray: Any, cluster: Cluster) -> str:
    """HOST:PORT of the head of the connected cluster."""
    if cluster.address.startswith("ray://"):
        return cluster.address
    return str(ray.get_runtime_context().gcs_address)


def room_of(cluster: Cluster, ray: Any) -> Room:
    """Raises InvalidInput if there are too few GPUs."""
    boxes = sum(node["Alive"] for node in ray.nodes())
    gpus = ray.cluster_resources().get("GPU", 0.0)
    each = cluster.gpus_each if cluster.gpus_each is not None else float(gpus > 0)
    if each > gpus:
        raise InvalidInput(
            "Each worker needs {each:g} GPUs, but the cluster at {address} has {gpus:g} in all. Use --gpus-each 0 "
            "to run on CPUs, or add machines with GPUs.",
            each=each,
            address=cluster.address,
            gpus=gpus,
        )
    return Room(cluster.workers or (int(gpus / each) if each else boxes), each, boxes)


def _check_address(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT; Ray itself would take minutes to notice."""
    found = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if found is not None:
        socket.create_connection((found[1], int(found[2])), _SECONDS_TO_CONNECT).close()
