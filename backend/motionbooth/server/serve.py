"""`motionbooth serve`: puts the parts together and runs them in one loop until it is told to stop."""

from __future__ import annotations

import logging
import logging.handlers
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import zmq
from motionbooth_protocol.connection import Connection, host_and_port
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.messages import Limits, ModelInfo

from motionbooth.server.auth import KeyCheck, open_socket
from motionbooth.server.blobs import Blobs
from motionbooth.server.executors import MakeExecutor, here
from motionbooth.server.handlers import DEFAULT_LIMITS, Answers
from motionbooth.server.keys import AuthorizedKeys, KeyPair, server_keys
from motionbooth.server.local_executor import Executor
from motionbooth.server.logs import formatter
from motionbooth.server.metrics import serve_metrics
from motionbooth.server.retention import Cleaner
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.sessions import Sessions
from motionbooth.server.store import Maker, Store
from motionbooth.server.watch import UNWATCHED, Watch, Watching
from motionbooth.server.web import serve_page
from motionbooth.server.worker import remove_scratch

DEFAULT_ADDRESS = "tcp://127.0.0.1:5599"
_POLL_MILLISECONDS = 200
_OPEN_FILES = 65_536  # where the system has no bound
_WILDCARD_HOSTS = ("0.0.0.0", "*", "[::]")

log = logging.getLogger("motionbooth.server")


def say_at_once(line: str) -> None:
    """Print for whoever waits, a person or a program reading from a pipe."""
    print(line, flush=True)


def serve(
    home: Path,
    address: str = DEFAULT_ADDRESS,
    models: list[ModelInfo] | None = None,
    say: Callable[[str], None] = say_at_once,
    worker_command: list[str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    keep_days: float = 0,
    stamp: Callable[[str], str] = lambda model: "",
    make_executor: MakeExecutor | None = None,
    watching: Watching = UNWATCHED,
) -> None:
    """Run a backend in the folder `home` until SIGTERM or SIGINT; no process is left behind.

    `home/connection.json`, by which the local client enters, is there while the server listens. `address` is ZeroMQ's
    ("tcp://127.0.0.1:*" for any free port). `limits`: of each key; `keep_days`: of ended jobs, 0 is for ever;
    `stamp(model)`: another one for another state of that model's files. Raises MotionBoothError where it cannot start,
    and says what to do. `make_executor` says where jobs run, by default on this machine; `watching`: how it can be
    watched.
    """
    command = worker_command or [sys.executable, "-m", "motionbooth.server.worker", str(home), watching.log_format]
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        _allow_open_files()
        _make_folders(home)
        store = Store(home / "jobs.sqlite", _maker(stamp))
        stack.callback(store.close)
        stack.enter_context(_log_to(home / "logs" / "server.log", watching.log_format))

        own_keys, client_keys, authorized = _keys(home)
        context = stack.enter_context(zmq.Context())
        key_check = KeyCheck(context, authorized)
        stack.callback(key_check.close)
        socket = open_socket(context, own_keys, address)
        stack.callback(socket.close)

        blobs = Blobs(home)
        stack.callback(blobs.close)
        executor = (make_executor or here())(context, home, command)
        scheduler = Scheduler(store, blobs, executor, clean=partial(remove_scratch, home))
        stack.callback(scheduler.close)
        scheduler.resume()
        cleaner = Cleaner(store, blobs, keep_days)
        answers = Answers(home, _name(), models or [], authorized, store, blobs, scheduler, cleaner, limits)
        sessions = Sessions(socket, authorized, store, scheduler, answers)
        stack.callback(sessions.drain)

        connection_file = home / "connection.json"
        endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        Connection(local(endpoint), own_keys.public, client_keys.public, client_keys.secret).write(connection_file)
        stack.callback(connection_file.unlink, missing_ok=True)
        _introduce(say, endpoint, connection_file, authorized, models or [], executor)
        tasks: list[Callable[[], None]] = [
            sessions.receive,
            scheduler.tick,
            sessions.tick,
            cleaner.tick,
            key_check.tick,
        ]
        if watching.needs_views:
            watch = Watch(answers, sessions, store)
            tasks.append(watch.tick)
            _open_windows(stack, say, home, watching, watch, blobs)
        _loop(stop, socket, executor, tasks)


def _maker(stamp: Callable[[str], str]) -> Maker:
    """Program and model, the latter looked at once a second at most."""
    seen: dict[str, tuple[float, str]] = {}

    def maker(model: str) -> str:
        at, found = seen.get(model, (float("-inf"), ""))
        if time.monotonic() - at > 1.0:
            at, found = seen[model] = time.monotonic(), f"{version('motionbooth')} {stamp(model)}"
        return found

    return maker


def _make_folders(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"The backend cannot keep its files in {home} ({error.strerror}). Choose a folder of yours with --home."
        ) from error


def _allow_open_files() -> None:
    """As many as the system lets us have: each client is one, and whoever reaches the port can open connections."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else most
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def local(endpoint: str) -> str:
    """The address by which a client on this machine reaches a server that listens on `endpoint`."""
    host, port = host_and_port(endpoint)
    return f"tcp://127.0.0.1:{port}" if host in _WILDCARD_HOSTS else endpoint


def _open_windows(
    stack: ExitStack, say: Callable[[str], None], home: Path, watching: Watching, watch: Watch, blobs: Blobs
) -> None:
    """The metrics and the web page, where they are wanted."""
    if watching.metrics_port is not None:
        stack.callback(serve_metrics(watching.metrics_port, watch))
        say(f"  metrics          http://127.0.0.1:{watching.metrics_port}/metrics")
    if watching.web_port is not None:
        address, stop = serve_page(watching.web_port, home, watch, blobs)
        stack.callback(stop)
        say(f"  web page         {address}")


def _loop(stop: list[int], socket: zmq.Socket[bytes], executor: Executor, tasks: Sequence[Callable[[], None]]) -> None:
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(executor.wake, zmq.POLLIN)
    while not stop:
        poller.poll(_POLL_MILLISECONDS)
        for task in tasks:
            task()
    log.info("stopping on signal %d", stop[0])


def _keys(home: Path) -> tuple[KeyPair, KeyPair, AuthorizedKeys]:
    """The server's and the local client's key pairs, and who may enter: the local client from the first start on."""
    local_secret = home / "keys" / "local.secret"
    first_start = not local_secret.exists()
    client_keys = KeyPair.kept_in(local_secret)
    authorized = AuthorizedKeys(home / "authorized")
    if first_start:
        authorized.add("local", client_keys.public, "admin")  # whoever can start the backend owns it
    return server_keys(home), client_keys, authorized


def _introduce(
    say: Callable[[str], None],
    endpoint: str,
    connection_file: Path,
    authorized: AuthorizedKeys,
    models: list[ModelInfo],
    executor: Executor,
) -> None:
    keys = ", ".join(f"{key.name} ({key.role})" for key in authorized.everyone())
    runs = ", ".join(f"{model.name} ({model.frames} frames of {model.width} x {model.height})" for model in models)
    say(f"MotionBooth {version('motionbooth')} listens on {endpoint}")
    say(f"  connection file  {connection_file}")
    say(f"  keys let in      {keys or 'none: put public keys into the folder authorized'}")
    say(f"  models           {runs or 'none'}")
    for place in executor.places():
        say(f"  worker           {place.name}: {place.device}")
    log.info("listening on %s, keys let in: %s", endpoint, keys)


def _name() -> str:
    return f"MotionBooth {version('motionbooth')} on {platform.node()}"


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that a SIGTERM or SIGINT puts its number into."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _log_to(path: Path, log_format: str) -> Iterator[None]:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=5 << 20, backupCount=3)
    handler.setFormatter(formatter(log_format))
    root = logging.getLogger("motionbooth")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    before, threading.excepthook = threading.excepthook, _log_death
    try:
        yield
    finally:
        threading.excepthook = before
        root.removeHandler(handler)
        handler.close()


def _log_death(death: threading.ExceptHookArgs) -> None:
    """A thread died of what nobody expected."""
    name = death.thread.name if death.thread is not None else "unknown"
    log.error("the thread %s died", name, exc_info=death.exc_value)
