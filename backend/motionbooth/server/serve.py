"""`motionbooth serve`: builds the parts of the server and runs them in one loop until a signal stops it."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType

import zmq
from motionbooth_protocol.connection import Connection, host_and_port, write_private
from motionbooth_protocol.errors import InvalidInput, MotionBoothError, is_disk_full

from motionbooth.server.attempts import TimeLimits
from motionbooth.server.auth import open_socket
from motionbooth.server.blobs import Blobs
from motionbooth.server.disk_space import DiskSpace
from motionbooth.server.executor import Executor
from motionbooth.server.handlers import RequestHandlers
from motionbooth.server.keys import AuthorizedKeys, KeyPair, server_keys
from motionbooth.server.live_state import LiveState
from motionbooth.server.local_executor import on_this_machine
from motionbooth.server.logs import LogRotation, logging_to
from motionbooth.server.metrics import serve_metrics
from motionbooth.server.model_version import PROGRAM_VERSION
from motionbooth.server.monitor import Monitor
from motionbooth.server.published_models import PublishedModels
from motionbooth.server.retention import Retention
from motionbooth.server.sandbox import sandbox_problem, sandboxed
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.scrub import Scrub
from motionbooth.server.sessions import Sessions
from motionbooth.server.settings import MonitoringSettings, ServerSettings
from motionbooth.server.store import Store
from motionbooth.server.task import Task
from motionbooth.server.transfers import Transfers
from motionbooth.server.views import Views
from motionbooth.server.web import serve_page

_OPEN_FILES = 65_536  # if the system has no limit
_WILDCARD_HOSTS = ("0.0.0.0", "*", "[::]")

log = logging.getLogger("motionbooth.server")


def print_now(line: str) -> None:
    """Print without buffering, for a person or a program that reads from a pipe. A full disk is no reason to fail."""
    with suppress(OSError):
        print(line, flush=True)


def serve(settings: ServerSettings, say: Callable[[str], None] = print_now) -> None:
    """Run a backend until SIGTERM or SIGINT; no process outlives it, except on a cluster.

    While it listens, `connection.json` in its folder is the connection file of the local client. `say` receives lines
    about the start. Raises MotionBoothError if it cannot start.
    """
    home, monitoring, limits = settings.home, settings.monitoring, settings.limits
    command = settings.worker_command or _worker_command(settings)
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        _raise_open_files_limit()
        _make_folders(home)
        store = Store(home / "jobs.sqlite", settings.model_version, settings.parts.database)
        stack.callback(store.close)
        stack.enter_context(logging_to(home / "logs" / "server.log", monitoring.log_format))
        if sandbox := _has_sandbox(settings):
            command = sandboxed(command, home, settings.readable, settings.writable)
        live = LiveState(models=settings.models)
        disk = DiskSpace(home, settings.reserve_bytes, live.problems, store.database.save_seconds_open)
        store.database.on_full = disk.filled

        own_keys, client_keys, authorized = _keys(home)
        context = stack.enter_context(zmq.Context())
        key_check = settings.parts.key_check(context, authorized)
        stack.callback(key_check.close)
        socket = _bound(context, own_keys, settings.address, home / "connection.json")
        stack.callback(socket.close)

        blobs = settings.parts.blobs(home)
        stack.callback(blobs.close)
        executor = (settings.make_executor or on_this_machine())(context, home, command)
        scheduler = Scheduler(
            store, blobs, executor, live, home, settings.cancel_grace, partial(_time_limits, settings, authorized),
        )  # fmt: skip
        stack.callback(scheduler.close)
        scheduler.resume()
        retention = Retention(store, blobs, settings.keep_days)
        views = Views(settings, authorized, store, scheduler, live)
        transfers = Transfers(blobs, store.ownership, retention, disk, limits.quota_bytes)
        published = PublishedModels(home, live, settings.find_models, store.queries.unfinished_with)
        stack.callback(published.close)
        handlers = RequestHandlers(
            store.queries, views, scheduler, transfers, retention, published, limits.waiting_jobs
        )
        sessions = Sessions(socket, settings, authorized, store.queries, handlers, views, live)
        stack.callback(sessions.close)

        endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        connection_file = ConnectionFile(
            home / "connection.json",
            Connection(local(endpoint), own_keys.public, client_keys.public, client_keys.secret),
        )
        stack.callback(connection_file.remove)
        connection_file.tick()
        _announce(say, settings, endpoint, authorized, executor)
        if not executor.outlives_server:  # otherwise each machine of the cluster decides
            say(f"  sandbox          {'on' if sandbox else 'off; motionbooth doctor says whether it works here'}")
        parts = {
            "requests": sessions.receive, "scheduler": scheduler.tick, "sessions": sessions.tick,
            "retention": retention.tick, "key check": key_check.tick, "disk": disk.tick,
            "connection file": connection_file.tick, "files": blobs.tick, "models": published.tick,
            "scrub": Scrub(blobs, store.ownership, live.problems).tick,
            "logs": LogRotation(home).tick,
        }  # fmt: skip
        if settings.supervisor is not None:
            parts["supervisor"] = partial(_end_with, settings.supervisor, stop)
        if monitoring.metrics_port is not None or monitoring.web_port is not None:
            monitor = Monitor(views)
            parts["monitor"] = monitor.tick
            _serve_monitoring(stack, say, home, monitoring, monitor, blobs)
        tasks = [Task(name, act, live.problems) for name, act in parts.items()]
        _loop(stop, socket, executor, tasks, sessions.wait_seconds)


class ConnectionFile:
    """The local client's, which exists while the server runs. On a full disk it is written when there is space."""

    def __init__(self, path: Path, connection: Connection) -> None:
        self._path = path
        self._connection = connection
        self._is_written = False

    def tick(self) -> None:
        """Write it, unless it is written or there is no space."""
        if not self._is_written:
            try:
                self._connection.write(self._path)
                self._is_written = True
            except OSError as error:
                if not is_disk_full(error):
                    raise

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _worker_command(settings: ServerSettings) -> list[str]:
    home = settings.home.resolve()  # a link may not be there in a sandbox
    return [sys.executable, "-m", "motionbooth.server.worker", str(home), settings.monitoring.log_format]


def _has_sandbox(settings: ServerSettings) -> bool:
    """Whether workers run in a sandbox: as chosen, or if it works here."""
    if settings.sandbox is not None:
        return settings.sandbox
    if (problem := sandbox_problem()) is not None:
        log.warning("workers run without a sandbox: %s", problem)
    return problem is None


def _make_folders(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            "The backend cannot keep its files in {home} ({reason}). Choose another folder with --home.",
            home=home,
            reason=error.strerror,
        ) from error


def _raise_open_files_limit() -> None:
    """To what the system allows: each client needs one file, and so does any other connection to the port."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def local(endpoint: str) -> str:
    """The address by which a client on this machine reaches a server that listens on `endpoint`."""
    host, port = host_and_port(endpoint)
    return f"tcp://127.0.0.1:{port}" if host in _WILDCARD_HOSTS else endpoint


def _serve_monitoring(
    stack: ExitStack, say: Callable[[str], None], home: Path, chosen: MonitoringSettings, monitor: Monitor, blobs: Blobs
) -> None:
    """Serve the metrics and the web page, as far as they are chosen."""
    if chosen.metrics_port is not None:
        stack.callback(serve_metrics(chosen.metrics_port, monitor))
        say(f"  metrics          http://127.0.0.1:{chosen.metrics_port}/metrics")
    if chosen.web_port is not None:
        address, stop = serve_page(chosen.web_port, home, monitor, blobs)
        stack.callback(stop)
        say(f"  web page         {address}")


def _time_limits(settings: ServerSettings, authorized: AuthorizedKeys, owner: str) -> TimeLimits:
    """A key that was revoked while its job waited is like a user's."""
    key = authorized.find(owner)
    return settings.time_limits["user" if key is None else key.role]


def _end_with(supervisor: int, stop: list[int]) -> None:
    if os.getppid() != supervisor:
        log.error("the supervisor was killed")
        stop.append(signal.SIGTERM)


def _loop(
    stop: list[int],
    socket: zmq.Socket[bytes],
    executor: Executor,
    tasks: Sequence[Callable[[], None]],
    wait_seconds: Callable[[], float],
) -> None:
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(executor.wake, zmq.POLLIN)
    while not stop:
        poller.poll(math.ceil(1000 * wait_seconds()))
        for task in tasks:
            task()
    log.info("stopping on signal %d", stop[0])


def _bound(context: zmq.Context[zmq.Socket[bytes]], keys: KeyPair, address: str, left: Path) -> zmq.Socket[bytes]:
    """The socket of the server. If any port will do, that of a server that crashed is preferred: its clients return.

    `left`: the connection file, which only a server that crashed leaves behind.
    """
    host, port = host_and_port(address)
    if port == "*" and left.exists():
        with suppress(MotionBoothError):  # the file is damaged, or the port is taken
            return open_socket(context, keys, f"tcp://{host}:{host_and_port(Connection.read(left).address)[1]}")
    return open_socket(context, keys, address)


def _keys(home: Path) -> tuple[KeyPair, KeyPair, AuthorizedKeys]:
    """The key pairs of the server and the local client, and the authorized keys."""
    local_secret = home / "keys" / "local.secret"
    authorized = AuthorizedKeys(home / "authorized")
    if not local_secret.exists():
        public, secret = zmq.curve_keypair()
        # The user who starts the backend owns it. First this: after a crash in between, both are made again.
        authorized.add("local", public.decode(), "admin")
        write_private(local_secret, secret + b"\n")
    return server_keys(home), KeyPair.kept_in(local_secret), authorized


def _announce(
    say: Callable[[str], None], settings: ServerSettings, endpoint: str, authorized: AuthorizedKeys, executor: Executor
) -> None:
    keys = ", ".join(f"{key.name} ({key.role})" for key in authorized.all())
    models = ", ".join(f"{one.name} ({one.frames} frames of {one.width} x {one.height})" for one in settings.models)
    say(f"MotionBooth {PROGRAM_VERSION} listens on {endpoint}")
    say(f"  connection file  {settings.home / 'connection.json'}")
    say(f"  authorized keys  {keys or 'none: put public keys into the folder authorized'}")
    say(f"  models           {models or 'none'}")
    for device in executor.devices():
        say(f"  worker           {device.name}: {device.description}")
    if executor.problem is not None:
        say(f"  workers          {executor.problem}")
    log.info("listening on %s, authorized keys: %s", endpoint, keys)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list to which SIGTERM and SIGINT add their number."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
