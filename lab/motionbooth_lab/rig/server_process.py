"""A real server with a small worker: `python -m motionbooth_lab.rig.server_process HOME ADDRESS`.

Its environment makes it fail:

- CRASH="before submit" or "after ...": killed, as by a power cut, at the commit that stores the first job (submit), at
  the commit that ends a job (finish), or when a file becomes visible (blob)
- FILE_LIMIT=BYTES stands for a full disk: no file can grow beyond it
- IDLE_SECONDS=N drops idle sessions sooner; KEEP_DAYS, QUOTA_BYTES, WAITING_JOBS, REQUESTS_PER_SECOND: limits
- MODEL_FILE=PATH: a file that stands for those of the model
- WEB_PORT, METRICS_PORT, LOG_FORMAT: monitoring
- SILENCE, STALL, WALL=SECONDS: of TimeLimits, the last for users only
- SANDBOX=on: workers in a sandbox; SANDBOX=auto: if it works, which is the only choice on a cluster
- SUPERVISED=1: as a child of the supervisor
- WORKERS=N on this machine's CPU; RAY_ADDRESS=ADDRESS: on that cluster

and by signals: SIGUSR1 kills the authenticator (the ZAP handler), SIGUSR2 sets the clock a day ahead, SIGABRT ends the
server with the traceback of each thread.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from motionbooth.models.sources import usable_models
from motionbooth.server.attempts import TimeLimits
from motionbooth.server.auth import KeyCheck
from motionbooth.server.blobs import Blobs
from motionbooth.server.database import Database
from motionbooth.server.local_executor import on_this_machine
from motionbooth.server.model_version import with_program
from motionbooth.server.ray_executor import on_cluster
from motionbooth.server.serve import serve
from motionbooth.server.settings import MonitoringSettings, ServerParts, ServerSettings
from motionbooth.server.supervisor import supervised
from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.messages import Limits, ModelInfo
from zmq.auth.thread import ThreadAuthenticator

SMALL_WORKER = "motionbooth_lab.rig.small_worker"
SMALL_MODEL = ModelInfo(name="small", frames=8, width=96, height=64, fps=8.0)
_DAY = 86_400.0
# Statements of the transactions that can crash.
_STATEMENTS = {"submit": "INSERT INTO jobs", "finish": "INSERT OR REPLACE INTO results"}


def killed(moment: str, act: Callable[[], None]) -> None:
    """Kill the process right before or after the act, like a power cut."""
    if moment == "after":
        act()
    os.kill(os.getpid(), signal.SIGKILL)


class CrashingDatabase(Database):
    """Kills the server at the first commit of a transaction with a certain statement."""

    moment, statement = "", ""
    _is_due = False

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._is_due |= bool(self.statement) and statement.startswith(self.statement)
        return super().execute(statement, *values)

    def commit(self) -> None:
        if self._is_due:
            killed(self.moment, super().commit)
        super().commit()


class CrashingBlobs(Blobs):
    """Kills the server when the first file is published."""

    moment = ""

    def publish(self, file: Path, path: Path) -> None:
        killed(self.moment, partial(super().publish, file, path))


class KillableKeyCheck(KeyCheck):
    """SIGUSR1 kills the thread of the authenticator at the next tick.

    Not in the signal handler, which may interrupt the main thread while it holds a lock that the dying thread needs,
    such as that of the log.
    """

    _is_due = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        signal.signal(signal.SIGUSR1, self._request)

    def tick(self) -> None:
        if self._is_due:
            self._is_due = False
            kill_thread(self.authenticator)
        else:
            super().tick()

    def _request(self, *_: object) -> None:
        self._is_due = True


def parts(crash: str) -> ServerParts:
    """The server's parts with the crash named by CRASH ("" for none)."""
    moment, _, act = crash.partition(" ")
    CrashingDatabase.moment, CrashingDatabase.statement = moment, _STATEMENTS.get(act, "")
    CrashingBlobs.moment = moment
    blobs = CrashingBlobs if act == "blob" else Blobs
    return ServerParts(CrashingDatabase, blobs, KillableKeyCheck)


def jump_a_day(*_: object) -> None:
    clock = time.time
    time.time = lambda: clock() + _DAY


def kill_thread(authenticator: ThreadAuthenticator) -> None:
    """Kill its thread with an exception, as a bug would, and wait until it has ended."""
    fault = ctypes.py_object(ZeroDivisionError)
    while authenticator.is_alive():  # asyncio survives an exception between two steps of the thread's own code
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(authenticator.thread.ident or 0), fault)
        authenticator.pipe.send(b"wake up")
        authenticator.thread.join(0.05)


def limits(environment: dict[str, str]) -> Limits:
    names = ("quota_bytes", "waiting_jobs", "requests_per_second")
    return Limits(**{name: int(environment.get(name.upper(), 0)) for name in names})


def time_limits(environment: dict[str, str]) -> dict[str, TimeLimits]:
    silence, stall, wall = (float(environment.get(name, 1e9)) for name in ("SILENCE", "STALL", "WALL"))
    return {"user": TimeLimits(silence, stall, wall), "admin": TimeLimits(silence, stall)}


def monitoring(environment: dict[str, str]) -> MonitoringSettings:
    ports = [int(environment[name]) if name in environment else None for name in ("METRICS_PORT", "WEB_PORT")]
    return MonitoringSettings(environment.get("LOG_FORMAT", "text"), *ports)


def model_version(file: str) -> str:
    return str(Path(file).stat().st_mtime_ns) if file else ""


def settings(home: Path, address: str, environment: dict[str, str]) -> ServerSettings:
    workers = int(environment.get("WORKERS", 1))
    cluster, sandbox = environment.get("RAY_ADDRESS"), environment.get("SANDBOX", "")
    return ServerSettings(
        home=home,
        address=address,
        models=[SMALL_MODEL],
        find_models=lambda: [SMALL_MODEL, *usable_models()],
        model_version=with_program(lambda model: model_version(environment.get("MODEL_FILE", ""))),
        limits=limits(environment),
        keep_days=float(environment.get("KEEP_DAYS", 0)),
        make_executor=on_cluster(cluster, workers, sandbox=bool(sandbox)) if cluster else on_this_machine(workers),
        worker_command=[sys.executable, "-m", SMALL_WORKER, str(home)],
        cancel_grace=1.0,
        idle_seconds=float(environment.get("IDLE_SECONDS", 120)),
        reserve_bytes=int(environment.get("RESERVE", 1 << 20)),
        monitoring=monitoring(environment),
        sandbox=False if cluster else {"on": True, "auto": None}.get(sandbox, False),
        time_limits=time_limits(environment),
        supervisor=supervised() if "SUPERVISED" in environment else None,
        parts=parts(environment.get("CRASH", "")),
    )


def main(home: Path, address: str) -> None:
    faulthandler.enable()
    signal.signal(signal.SIGUSR2, jump_a_day)
    if "FILE_LIMIT" in os.environ:
        limit = int(os.environ["FILE_LIMIT"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        serve(settings(home, address, dict(os.environ)))
    except MotionBoothError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
