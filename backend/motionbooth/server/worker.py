"""The worker process: reads attempts from its standard input, runs one after the other, and reports on standard output.

It keeps its model in memory between jobs, and exits as soon as the server's end of the pipe is closed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from motionbooth_protocol.errors import Canceled, MotionBoothError, OutOfSpace, is_disk_full
from motionbooth_protocol.jobs import Blob, JobSpec
from motionbooth_protocol.reports import PreviewReport, ProgressReport
from motionbooth_protocol.text import Text

from motionbooth.models.memory.plans import is_out_of_memory
from motionbooth.progress.time_left import Paces, Stage, TimeLeft
from motionbooth.server import worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId, JobNumber
from motionbooth.server.blobs import Blobs
from motionbooth.server.durable_files import sync
from motionbooth.server.hashing import hash_file
from motionbooth.server.logs import formatter
from motionbooth.server.specs import pace_key

if TYPE_CHECKING:  # imports torch, which the first job does
    from motionbooth.jobs.model_cache import ModelCache

log = logging.getLogger("motionbooth.worker")
_SECONDS_BETWEEN_REPORTS = 0.1
_SECONDS_BETWEEN_BEATS = 2.0

# Arguments: spec, path of a blob by its sha256, the job's scratch folder, reporter. Returns the finished files by role.
JobFunction = Callable[[JobSpec, Callable[[str], Path], Path, "PipeReporter"], dict[str, Path]]


class Worker:
    """Carries out the commands of one server, whose folder is `home`."""

    def __init__(self, run: JobFunction, home: Path, commands: IO[bytes], reports: IO[bytes]) -> None:
        self._run = run
        self._home = home
        self._blobs = Blobs(home)
        self._commands = commands
        self._reports = reports
        self._queue: queue.SimpleQueue[Attempt] = queue.SimpleQueue()
        self._canceled: set[AttemptId] = set()
        self._running: AttemptId | None = None
        self._paces: Paces = {}

    def serve(self) -> None:
        """Work until the process is killed or its server is gone."""
        threading.Thread(target=self._listen, name="commands", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        while True:
            attempt = self._queue.get()
            self._running = attempt.id
            report = self._carry_out(attempt)
            self._running = None
            worker_pipe.write(self._reports, report)

    def _beat(self) -> None:
        while True:
            if (id := self._running) is not None:
                worker_pipe.write(self._reports, worker_pipe.Alive(id))
            time.sleep(_SECONDS_BETWEEN_BEATS)

    def _listen(self) -> None:
        while data := worker_pipe.read(self._commands):
            command = worker_pipe.command_decoder.decode(data)
            if isinstance(command, Attempt):
                self._queue.put(command)
            else:
                self._canceled.add(command.id)
        # The server is gone. The next one resumes this job from its last checkpoint, so there is nothing to clean up.
        os._exit(0)

    def _carry_out(self, attempt: Attempt) -> worker_pipe.Finished | worker_pipe.Failed:
        try:
            return worker_pipe.Finished(attempt.id, results=self._results_of(attempt))
        except Exception as error:
            if not isinstance(error, MotionBoothError):
                log.exception("job %d, attempt %d", *attempt.id)
            if _ends_the_device(error):
                os._exit(1)  # the next process can use it again; the server starts one, and the job once more
            return worker_pipe.Failed(attempt.id, error=error_for_owner(error).report)

    def _results_of(self, attempt: Attempt) -> list[Blob]:
        scratch = scratch_folder(self._home, attempt.id.job_number)
        scratch.mkdir(parents=True, exist_ok=True)
        time_left = TimeLeft(pace_key(attempt.spec), self._paces)
        reporter = PipeReporter(self._reports, attempt.id, lambda: attempt.id in self._canceled, time_left)
        files = self._run(attempt.spec, self._blobs.sound_path, scratch, reporter)
        return [offer(self._home, attempt.id.job_number, role, file) for role, file in sorted(files.items())]


class PipeReporter:
    """Sends progress to the server, at most ten times a second, with the time left for the whole job."""

    def __init__(
        self, pipe: IO[bytes], id: AttemptId, is_canceled: Callable[[], bool], time_left: TimeLeft | None = None
    ) -> None:
        self._pipe = pipe
        self._id = id
        self._is_canceled = is_canceled
        self._time_left = time_left or TimeLeft()
        self._at = ProgressReport("", 0, 0)
        self._sent_at = float("-inf")

    def plan(self, stages: Sequence[Stage]) -> None:
        """The stages of the job."""
        self._time_left.plan(stages)

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        """`step` of `steps` are done. Raises Canceled if the job was canceled."""
        if self._is_canceled():
            raise Canceled("The job was canceled.")
        before, now = self._at, time.monotonic()
        self._at = ProgressReport(stage, step, steps, self._time_left.step(stage, step, steps), note)
        is_new_stage = (stage, steps) != (before.stage, before.steps)
        if is_new_stage or step >= steps or now - self._sent_at >= _SECONDS_BETWEEN_REPORTS:
            self._sent_at = now
            worker_pipe.write(self._pipe, worker_pipe.Progressed(self._id, self._at))

    def preview(self, picture: bytes, width: int, height: int) -> None:
        """Send a small picture, JPEG or PNG, of the state at the last call of `progress`."""
        report = PreviewReport(self._at.stage, self._at.step, self._at.steps, width, height, picture)
        worker_pipe.write(self._pipe, worker_pipe.Previewed(self._id, report))


def scratch_folder(home: Path, job_number: JobNumber) -> Path:
    """A job's folder for checkpoints and unfinished files, shared by all of its attempts."""
    return home / "scratch" / str(job_number)


def result_file(home: Path, job_number: JobNumber, sha256: str) -> Path:
    """Where a worker leaves a finished file for the server, which moves it into its store.

    No file outside has such a name, so that a worker gains nothing by a link in place of the folder.
    """
    return scratch_folder(home, job_number) / f"{sha256}.result"


def offer(home: Path, job_number: JobNumber, role: str, file: Path) -> Blob:
    """Leave a finished file for the server."""
    hashed = hash_file(file)
    blob = Blob(role, hashed.digest.hexdigest(), hashed.size)
    sync(file)  # here, so that the server does not wait for it
    file.replace(result_file(home, job_number, blob.sha256))
    return blob


def remove_scratch(home: Path, job_number: JobNumber) -> None:
    shutil.rmtree(scratch_folder(home, job_number), ignore_errors=True)


def _ends_the_device(error: Exception) -> bool:
    """Whether every later call of CUDA or ROCm fails in this process, too."""
    return re.search(r"\b(CUDA|HIP) error: ", str(error)) is not None and not is_out_of_memory(error)


def error_for_owner(error: Exception) -> MotionBoothError:
    """The error as a sentence for the job's owner. An unexpected error is in the worker's log."""
    if isinstance(error, MotionBoothError):
        return error
    if isinstance(error, OSError) and is_disk_full(error):
        return OutOfSpace("The backend's disk is full; the job resumes when there is space.")
    if is_out_of_memory(error):
        return MotionBoothError(
            "The backend ran out of memory. Try fewer frames or a smaller model, or close other programs on {machine}.",
            machine=platform.node(),
        )
    return MotionBoothError(
        "The job failed because of a bug ({kind}). The backend's owner finds the details in worker.log, in the logs "
        "folder of the backend on {machine}.",
        kind=type(error).__name__,
        machine=platform.node(),
    )


def main(run: JobFunction, home: Path, log_format: str = "text") -> None:
    """Serve as the worker of the process that started this one."""
    commands, reports = worker_pipe.of_this_process()
    with contextlib.suppress(OSError):  # if memory runs out, the kernel is to kill this process and not the server
        Path("/proc/self/oom_score_adj").write_text("500")
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    try:
        Worker(run, home, commands, reports).serve()
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)


class ModelJobs:
    """The JobFunction of the product. Imports torch with the first job, and reports that, since it takes seconds."""

    def __init__(self) -> None:
        self._cache: ModelCache | None = None

    def __call__(
        self, spec: JobSpec, blob_path: Callable[[str], Path], scratch: Path, reporter: PipeReporter
    ) -> dict[str, Path]:
        if self._cache is None:
            reporter.progress("starting the worker", 0, 1)
        from motionbooth.jobs.model_cache import ModelCache
        from motionbooth.jobs.runner import run_job

        self._cache = self._cache or ModelCache()
        return run_job(spec, blob_path, scratch, reporter, self._cache, reporter.preview)


if __name__ == "__main__":
    main(ModelJobs(), Path(sys.argv[1]), *sys.argv[2:])
