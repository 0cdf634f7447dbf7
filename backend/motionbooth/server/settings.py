"""What a backend's owner chooses, and the parts that its test rigs replace."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from motionbooth_protocol.messages import Limits, ModelInfo

from motionbooth.server.attempts import TimeLimits
from motionbooth.server.auth import KeyCheck
from motionbooth.server.blobs import Blobs
from motionbooth.server.database import Database
from motionbooth.server.disk_space import RESERVE_BYTES
from motionbooth.server.executor import MakeExecutor
from motionbooth.server.model_version import PROGRAM_VERSION, ModelVersion, program_version

DEFAULT_JOB_HOURS = 24.0
DEFAULT_ADDRESS = "tcp://127.0.0.1:5599"
DEFAULT_LIMITS = Limits(waiting_jobs=10_000, requests_per_second=1000)


def time_limits(job_hours: float) -> dict[str, TimeLimits]:
    """By role: a user's jobs may run for so long, 0: without limit; an admin's are not limited."""
    return {"user": TimeLimits(wall=job_hours * 3600), "admin": TimeLimits()}


@dataclass(frozen=True)
class MonitoringSettings:
    """Ports are on this machine's loopback; None: no such service."""

    log_format: str = "text"  # or "json"
    metrics_port: int | None = None
    web_port: int | None = None  # 0: any free port


@dataclass(frozen=True)
class ServerParts:
    """The classes of a server that can be replaced, for the injection of faults."""

    database: Callable[[Path], Database] = Database
    blobs: Callable[[Path], Blobs] = Blobs
    key_check: type[KeyCheck] = KeyCheck


@dataclass(frozen=True)
class ServerSettings:
    home: Path  # the backend's folder
    address: str = DEFAULT_ADDRESS  # as in ZeroMQ; "tcp://127.0.0.1:*" for any free port
    models: list[ModelInfo] = field(default_factory=list)
    find_models: Callable[[], list[ModelInfo]] | None = None  # those of later, after one was fetched or removed
    model_version: ModelVersion = program_version  # see model_version.py
    limits: Limits = DEFAULT_LIMITS  # of each key
    keep_days: float = 0  # of ended jobs; 0: forever
    make_executor: MakeExecutor | None = None  # None: on this machine
    worker_command: list[str] | None = None  # None: the product's own worker
    sandbox: bool | None = False  # for workers on this machine; None: if it works; see sandbox.py
    readable: Sequence[Path] = ()  # by workers in a sandbox, wherever it is: models
    writable: Sequence[Path] = ()  # by workers in a sandbox: caches
    cancel_grace: float = 5.0  # seconds
    time_limits: Mapping[str, TimeLimits] = field(default_factory=lambda: time_limits(DEFAULT_JOB_HOURS))  # by role
    idle_seconds: float = 120.0  # without a message in either direction, after which a session is dropped
    reserve_bytes: int = RESERVE_BYTES  # see disk_space.py
    monitoring: MonitoringSettings = MonitoringSettings()
    parts: ServerParts = ServerParts()
    supervisor: int | None = None  # its process id; see supervisor.py

    @property
    def name(self) -> str:
        """For the greeting and the status."""
        return f"MotionBooth {PROGRAM_VERSION} on {platform.node()}"
