"""The worker process: jobs come by its standard input, one runs after the other, reports go to its standard output.

It stays warm between jobs, and ends as soon as the server's end of the pipe is closed, whatever it is doing.
"""

from __future__ import annotations

import logging
import os
import platform
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from motionbooth_protocol.errors import Canceled, MotionBoothError, OutOfSpace, is_disk_full
from motionbooth_protocol.jobs import Blob, JobSpec, TrainSpec
from motionbooth_protocol.reports import PreviewReport, ProgressReport

from motionbooth.progress.time_left import Paces, Stage, TimeLeft
from motionbooth.server import worker_pipe
from motionbooth.server.blobs import Blobs
from motionbooth.server.logs import formatter

if TYPE_CHECKING:  # the work itself loads torch: only when the first job is there
    from motionbooth.jobs.model_cache import WarmBase

log = logging.getLogger("motionbooth.worker")
_SECONDS_BETWEEN_REPORTS = 0.1

# A spec, where blobs lie, the job's scratch folder and whom to tell; the finished files by role.
Runner = Callable[[JobSpec, Callable[[str], Path], Path, "PipeReporter"], dict[str, Path]]


class Worker:
    """Carries out the commands of one server. `home` is the server's own folder."""

    def __init__(self, run: Runner, home: Path, commands: IO[bytes], reports: IO[bytes]) -> None:
        self._run = run
        self._home = home
        self._blobs = Blobs(home)
        self._commands = commands
        self._reports = reports
        self._queue: queue.SimpleQueue[worker_pipe.Run] = queue.SimpleQueue()
        self._stopped: set[tuple[int, int]] = set()
        self._paces: Paces = {}

    def serve(self) -> None:
        """Work until the process is ended."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        while True:
            command = self._queue.get()
            worker_pipe.write(self._reports, self._carry_out(command))

    def _listen(self) -> None:
        while data := worker_pipe.read(self._commands):
            command = worker_pipe.commands.decode(data)
            if isinstance(command, worker_pipe.Run):
                self._queue.put(command)
            else:
                self._stopped.add((command.number, command.attempt))
        # The server is gone. Its next one starts this job again from its last checkpoint, so no tidying up here.
        os._exit(0)

    def _carry_out(self, command: worker_pipe.Run) -> worker_pipe.Finished | worker_pipe.Failed:
        number, attempt = command.number, command.attempt
        try:
            return worker_pipe.Finished(number=number, attempt=attempt, results=self._results_of(command))
        except Exception as error:
            if not isinstance(error, MotionBoothError):
                log.exception("job %d, attempt %d", number, attempt)
            told = explained(error)
            return worker_pipe.Failed(number=number, attempt=attempt, code=told.code, message=str(told))

    def _results_of(self, command: worker_pipe.Run) -> list[Blob]:
        scratch = scratch_folder(self._home, command.number)
        scratch.mkdir(parents=True, exist_ok=True)
        time_left = TimeLeft(kind_of(command.spec), self._paces)
        stopped = (command.number, command.attempt)
        reporter = PipeReporter(self._reports, command, lambda: stopped in self._stopped, time_left)
        files = self._run(command.spec, self._blobs.path, scratch, reporter)
        return [Blob(role, *self._blobs.adopt(file)) for role, file in sorted(files.items())]


def kind_of(spec: JobSpec) -> str:
    """Jobs of one kind have stages of about the same pace."""
    if isinstance(spec, TrainSpec):
        return f"train {spec.model} {spec.method} {spec.recipe}"
    return f"generate {spec.model}"


class PipeReporter:
    """Sends progress to the server, ten times a second at most, with the time left of the whole job."""

    def __init__(
        self, pipe: IO[bytes], command: worker_pipe.Run, stopped: Callable[[], bool], time_left: TimeLeft | None = None
    ) -> None:
        self._pipe = pipe
        self._command = command
        self._stopped = stopped
        self._time_left = time_left or TimeLeft()
        self._stage: tuple[str, int] | None = None
        self._step = 0
        self._sent_at = float("-inf")

    def plan(self, stages: Sequence[Stage]) -> None:
        """What the job consists of."""
        self._time_left.plan(stages)

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        """`step` of `steps` are done. Raises Canceled where the job was canceled."""
        if self._stopped():
            raise Canceled("The job was canceled.")
        self._step = step
        seconds_left = self._time_left.step(stage, step, steps)
        now = time.monotonic()
        if (stage, steps) != self._stage:
            self._stage = (stage, steps)
        elif step < steps and now - self._sent_at < _SECONDS_BETWEEN_REPORTS:
            return
        self._sent_at = now
        about = self._command
        worker_pipe.write(
            self._pipe,
            worker_pipe.Advanced(
                number=about.number,
                attempt=about.attempt,
                report=ProgressReport(stage, step, steps, seconds_left, note),
            ),
        )

    def preview(self, picture: bytes, width: int, height: int) -> None:
        """Send a small picture, JPEG or PNG, of what the last progress told of."""
        stage, steps = self._stage or ("", 0)
        about = self._command
        worker_pipe.write(
            self._pipe,
            worker_pipe.Pictured(
                number=about.number,
                attempt=about.attempt,
                report=PreviewReport(stage, self._step, steps, width, height, picture),
            ),
        )


def scratch_folder(home: Path, number: int) -> Path:
    """A job's own folder for checkpoints and half-made files; the same for all of its attempts."""
    return home / "scratch" / str(number)


def log_file(home: Path) -> Path:
    return home / "logs" / "worker.log"


def explained(error: Exception) -> MotionBoothError:
    """The error in words for the job's owner. What was not meant for a person stands in the worker's log."""
    if isinstance(error, MotionBoothError):
        return error
    if isinstance(error, OSError) and is_disk_full(error):
        return OutOfSpace("The backend's disk is full; the job goes on when there is space.")
    if _is_out_of_memory(error):
        return MotionBoothError(
            "The backend ran out of memory. Try fewer frames or a smaller model, or close other programs on "
            f"{platform.node()}."
        )
    return MotionBoothError(
        f"The job ended with a fault of the program ({type(error).__name__}). The backend's owner finds it in "
        f"worker.log, in the logs folder of the backend on {platform.node()}."
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Python's own, CUDA's (`torch.OutOfMemoryError`), and the CPU allocator's plain RuntimeError."""
    words = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in words
        or "not enough memory" in words
    )


def main(run: Runner, home: Path, log_format: str = "text") -> None:
    """Be the worker of the server that started this process."""
    commands = os.fdopen(os.dup(0), "rb")
    reports = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not get between the messages, and none may read the commands.
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        Worker(run, home, commands, reports).serve()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)


def remove_scratch(home: Path, number: int) -> None:
    shutil.rmtree(scratch_folder(home, number), ignore_errors=True)


class Work:
    """The product's own work, loaded with the first job: that takes seconds, and its owner should see why."""

    def __init__(self) -> None:
        self._warm: WarmBase | None = None

    def __call__(
        self, spec: JobSpec, blob_path: Callable[[str], Path], scratch: Path, reporter: PipeReporter
    ) -> dict[str, Path]:
        if self._warm is None:
            reporter.progress("starting the worker", 0, 1)
        from motionbooth.jobs.model_cache import WarmBase
        from motionbooth.jobs.runner import run

        self._warm = self._warm or WarmBase()
        return run(spec, blob_path, scratch, reporter, self._warm, reporter.preview)


if __name__ == "__main__":
    main(Work(), Path(sys.argv[1]), *sys.argv[2:])
