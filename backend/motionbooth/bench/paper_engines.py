"""Who does the work of `motionbooth bench paper`: this process, a backend, or another system's command."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.errors import MotionBoothError, NotFound
from motionbooth_protocol.jobs import GenerateSpec, JobSpec, TrainSpec
from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.text import Text

from motionbooth.finetuning.finetune import TrainingOptions
from motionbooth.jobs.local_training import train_locally
from motionbooth.jobs.model_cache import ModelCache
from motionbooth.jobs.runner import run_job
from motionbooth.models.sources import source_named
from motionbooth.progress.time_left import Stage

COMMAND_NOT_FOUND = 127  # the exit status of shells

Finish = Callable[[], None]
"""Waits until the file is written. Raises MotionBoothError."""


class Engine(Protocol):
    """Trains subjects and generates clips."""

    ahead: int
    """How many jobs it can be given before the first is finished."""

    def model(self, name: str) -> tuple[ModelInfo, str]:
        """A base model, and what changes if its weights do. Raises NotFound."""

    def begin(self, spec: JobSpec, files: Mapping[str, Path], out: Path) -> Finish:
        """Begin a job whose result becomes the file `out`; `files` by the sha256 that the spec names."""


class _Silent:
    """A Reporter that discards everything: the bench counts clips."""

    def plan(self, stages: Sequence[Stage]) -> None:
        return

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        return


SILENT = _Silent()


class ThisProcess:
    """Does each job when it is to be finished."""

    ahead = 1

    def __init__(self) -> None:
        self._cache = ModelCache()

    def model(self, name: str) -> tuple[ModelInfo, str]:
        source = source_named(name)
        return source.info, source.network_sha256

    def begin(self, spec: JobSpec, files: Mapping[str, Path], out: Path) -> Finish:
        return lambda: self._run(spec, files, out)

    def _run(self, spec: JobSpec, files: Mapping[str, Path], out: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(spec, TrainSpec):
            self._cache.clear()  # training needs all the memory
            train_locally(spec, dict(files), TrainingOptions.of_this_machine(), out, SILENT)
            return
        with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
            made = run_job(spec, lambda sha256: files[sha256], Path(scratch), SILENT, self._cache)
            made["clip"].replace(out)


class Backend:
    """Sends the jobs to a backend. A job that it has done before is answered from its cache."""

    ahead = 64

    def __init__(self, client: Client) -> None:
        self._client = client
        self._models = {model.name: model for model in client.models()}
        self._sent: set[str] = set()

    def model(self, name: str) -> tuple[ModelInfo, str]:
        if name not in self._models:
            known = ", ".join(self._models) or "none"
            raise NotFound('The backend has no base model "{name}", only: {models}.', name=name, models=known)
        return self._models[name], "the backend's"

    def begin(self, spec: JobSpec, files: Mapping[str, Path], out: Path) -> Finish:
        for sha256 in files.keys() - self._sent:  # a trained subject may have gigabytes, and many clips
            self._client.upload(files[sha256])
            self._sent.add(sha256)
        job = new_job_id()
        self._client.submit(job, spec)

        def finish() -> None:
            out.parent.mkdir(parents=True, exist_ok=True)
            result = self._client.follow(job).result("subject" if isinstance(spec, TrainSpec) else "clip")
            self._client.fetch(result, out)

        return finish


def run_rival(command: str, spec: GenerateSpec, out: Path) -> None:
    """Run another system: its command, with a shot.json (as `motionbooth export` reads) and the clip to write appended.

    Raises MotionBoothError if it fails or writes no clip.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        shot, clip = Path(scratch) / "shot.json", Path(scratch) / "clip.mp4"
        shot.write_bytes(msgspec.json.encode({"generate": spec}))
        try:
            arguments = [*shlex.split(command), str(shot), str(clip)]
            ran = subprocess.run(arguments, capture_output=True, text=True, errors="replace", check=False)
        except (OSError, ValueError) as error:  # there is no such program, or a quotation mark is missing
            status, reason = COMMAND_NOT_FOUND, str(error)
        else:
            status, reason = ran.returncode, ran.stderr.strip() if ran.returncode else ""
        if status or not clip.is_file():
            raise MotionBoothError(
                "The command {command} failed (exit status {status}): {reason}",
                command=command,
                status=status,
                reason=(reason or "it wrote no clip").splitlines()[-1],
            )
        shutil.move(clip, out)
