"""Runs the server as a child process and starts it again when a signal has ended it, such as SIGABRT from libzmq."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

_MARK = "MOTIONBOOTH_SUPERVISOR"  # environment variable with the process id of the supervisor
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before a new start
_SECONDS_OF_HEALTH = 60.0  # after which earlier crashes do not count
_MAX_CRASHES = 10  # in a row


def supervised() -> int | None:
    """Returns in the server's process only, with the supervisor's process id; this process becomes the supervisor.

    The supervisor exits with the server's status. Without signals (on Windows) there is none: returns None.
    """
    mark = os.environ.pop(_MARK, None)
    if os.name != "posix":
        return None
    if mark == str(os.getppid()):
        return os.getppid()
    sys.exit(_Supervisor([sys.executable, *sys.orig_argv[1:]]).run())


class _Supervisor:
    """SIGTERM and SIGINT are passed on to the server, and its end is ours."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._server: subprocess.Popen[bytes] | None = None
        self._signal = 0
        self._stopping = threading.Event()

    def run(self) -> int:
        """Returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        crashes = 0
        while True:
            began = time.monotonic()
            status = self._run_once()
            if status >= 0 or self._stopping.is_set():
                return status if status >= 0 else 128 - status
            crashes = crashes + 1 if time.monotonic() - began < _SECONDS_OF_HEALTH else 1
            pause = min(_FIRST_PAUSE * 2 ** (crashes - 1), _LONGEST_PAUSE)
            name = signal.Signals(-status).name if -status in list(signal.Signals) else str(-status)
            if crashes >= _MAX_CRASHES:
                print(f"The server was ended by {name} {crashes} times in a row; giving up.", file=sys.stderr)
                return 1
            print(f"The server was ended by {name}; it starts again in {pause:g} s.", file=sys.stderr, flush=True)
            if self._stopping.wait(pause):
                return 0

    def _run_once(self) -> int:
        # Its own session: Ctrl+C in the terminal reaches it once, through us.
        self._server = subprocess.Popen(
            self._command, env={**os.environ, _MARK: str(os.getpid())}, start_new_session=True
        )
        if self._stopping.is_set():  # `_stop` may have missed this process
            self._server.send_signal(self._signal)
        return self._server.wait()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        self._stopping.set()
        if self._server is not None:
            self._server.send_signal(number)
