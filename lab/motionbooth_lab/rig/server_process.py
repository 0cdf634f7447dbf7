"""A real server whose worker does small work: `python -m motionbooth_lab.rig.server_process HOME ADDRESS`.

It can be made to fail, by its environment:

- CRASH="before submit": killed, as by a power cut, right before or after a named moment: the commit that keeps the
  first new job (submit), the commit that ends a job (finish), the renaming by which a file becomes visible (blob)
- FILE_LIMIT=BYTES stands for a full disk: no file can grow beyond it
- IDLE_SECONDS=N forgets idle sessions sooner; KEEP_DAYS, QUOTA_BYTES, WAITING_JOBS, REQUESTS_PER_SECOND: limits
- MODEL_FILE=PATH: a file that stands for those of the model
- WEB_PORT, METRICS_PORT, LOG_FORMAT: how it is watched
- WORKERS=N on this machine's CPU; RAY_ADDRESS=ADDRESS: on that cluster

and by signals: SIGUSR1 kills its key check (the ZAP handler), SIGUSR2 puts its clock a day ahead, SIGABRT makes it end
with what each thread was at.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from motionbooth.server import auth, database, executors, scheduler, serve, sessions, store, watch
from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.messages import Limits, ModelInfo
from zmq.auth.thread import ThreadAuthenticator

SMALL_WORKER = "motionbooth_lab.rig.small_worker"
SMALL_MODEL = ModelInfo(name="small", frames=8, width=96, height=64, fps=8.0)
_DAY = 86_400.0


def crash(moment: str, what: str) -> None:
    """Die right before or after the named deed, once it is done for the first time."""

    def deadly(deed: Callable[..., Any]) -> Callable[..., Any]:
        def die(*arguments: Any) -> Any:
            if moment == "after":
                deed(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        return die

    def arm(*_: object) -> None:
        database.Database.commit = deadly(database.Database.commit)  # type: ignore[method-assign]

    if what == "blob":
        replace = Path.replace

        def replace_or_die(path: Path, target: Path) -> Path:
            deed = deadly(replace) if "blobs" in Path(target).parts else replace
            return deed(path, target)

        Path.replace = replace_or_die  # type: ignore[method-assign, assignment]
    else:
        name = {"submit": "_insert", "finish": "_keep_results"}[what]
        setattr(store.Store, name, before(getattr(store.Store, name), arm))


def before(deed: Callable[..., Any], first: Callable[..., None]) -> Callable[..., Any]:
    def both(*arguments: Any) -> Any:
        first(*arguments)
        return deed(*arguments)

    return both


def fail_on_signals() -> None:
    checks: list[auth.KeyCheck] = []

    class KilledKeyCheck(auth.KeyCheck):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            checks.append(self)

    def kill_key_check(*_: object) -> None:
        kill_thread(checks[-1].authenticator)

    def jump(*_: object) -> None:
        clock = time.time
        time.time = lambda: clock() + _DAY

    serve.KeyCheck = KilledKeyCheck  # type: ignore[assignment, attr-defined]
    signal.signal(signal.SIGUSR1, kill_key_check)
    signal.signal(signal.SIGUSR2, jump)


def kill_thread(authenticator: ThreadAuthenticator) -> None:
    """Let its thread die of an exception, as by a fault of its program, and wait until it has."""
    fault = ctypes.py_object(ZeroDivisionError)
    while (
        authenticator.is_alive()
    ):  # asyncio outlives an exception that comes between two steps of the thread's own program
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(authenticator.thread.ident or 0), fault)
        authenticator.pipe.send(b"wake up")
        authenticator.thread.join(0.05)


def limits(environment: dict[str, str]) -> Limits:
    names = ("quota_bytes", "waiting_jobs", "requests_per_second")
    return Limits(**{name: int(environment.get(name.upper(), 0)) for name in names})


def watching(environment: dict[str, str]) -> watch.Watching:
    ports = [int(environment[name]) if name in environment else None for name in ("METRICS_PORT", "WEB_PORT")]
    return watch.Watching(environment.get("LOG_FORMAT", "text"), *ports)


def state_of(file: str) -> str:
    return str(Path(file).stat().st_mtime_ns) if file else ""


def main(home: Path, address: str) -> None:
    environment = dict(os.environ)
    faulthandler.enable()
    fail_on_signals()
    if "CRASH" in environment:
        crash(*environment["CRASH"].split())
    if "FILE_LIMIT" in environment:
        limit = int(environment["FILE_LIMIT"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if "IDLE_SECONDS" in environment:
        sessions._IDLE_SECONDS = float(environment["IDLE_SECONDS"])
    scheduler.CANCEL_GRACE_SECONDS = 1.0
    workers = int(environment.get("WORKERS", 1))
    try:
        serve.serve(
            home,
            address,
            [SMALL_MODEL],
            worker_command=[sys.executable, "-m", SMALL_WORKER, str(home)],
            limits=limits(environment),
            keep_days=float(environment.get("KEEP_DAYS", 0)),
            make_executor=executors.on_ray(environment["RAY_ADDRESS"], workers)
            if "RAY_ADDRESS" in environment
            else executors.here(workers),
            watching=watching(environment),
            stamp=lambda model: state_of(environment.get("MODEL_FILE", "")),
        )
    except MotionBoothError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
