"""Fetching, checking and removing published models at the request of admins.

A process of its own does it, beside the workers: these are in a sandbox, without network and without write access to
the models. It gets nothing from the wire but a name that is in the registry.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from motionbooth_protocol import messages
from motionbooth_protocol.errors import Canceled, Conflict, InvalidInput, MotionBoothError, from_os_error
from motionbooth_protocol.messages import ModelInfo, PublishedModel
from motionbooth_protocol.reporting_process import ReportingProcess
from motionbooth_protocol.reports import ProgressReport
from motionbooth_protocol.text import Text

from motionbooth.models.downloads import FETCHING, fetched_bytes
from motionbooth.models.published import published, published_named, title_of
from motionbooth.models.sources import fetched_folder
from motionbooth.server.live_state import LiveState

log = logging.getLogger("motionbooth.models")
_DONE = {
    "get": "{model} was fetched and checked.",
    "check": "All files of {model} are as they were published.",
    "remove": "{model} was removed.",
}
_MB = 1_000_000


class _Offer(msgspec.Struct):
    """What the hub has, as the process said."""

    size: int
    licenses: list[messages.ModelLicense]


class _Task:
    """An action on a model, in a process and a thread that waits for it."""

    def __init__(self, action: str, name: str, log_file: Path) -> None:
        self.action = action
        self.report = ProgressReport("", 0, 0)
        self.result: Any = None
        self.error: MotionBoothError | None = None
        command = [sys.executable, "-m", "motionbooth.models.model_task", action, name]
        self._process = ReportingProcess(command, log_file, {"HF_HUB_DISABLE_PROGRESS_BARS": "1"})
        self._thread = threading.Thread(target=self._run, name=f"{action} {name}", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Ends it soon; does not wait."""
        threading.Thread(target=self._process.stop, daemon=True).start()

    def close(self) -> None:
        self._process.stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            self.result = self._process.run(self._progressed)
        except MotionBoothError as error:
            self.error = error
        except OSError as error:
            self.error = from_os_error(error)
        except Exception as error:
            log.exception("%s failed", self._thread.name)
            self.error = MotionBoothError(
                "This failed because of a bug in the backend ({kind}); its owner finds the details in server.log.",
                kind=type(error).__name__,
            )

    def _progressed(self, report: ProgressReport) -> None:
        self.report = report


class PublishedModels:
    """`home`: the backend's folder, in which the downloads are noted that go on after a restart. `find_models`: the
    base models that can be used now. `jobs_with`: how many jobs that have not ended use a base model.
    """

    def __init__(
        self,
        home: Path,
        live: LiveState,
        find_models: Callable[[], list[ModelInfo]] | None,
        jobs_with: Callable[[str], int],
    ) -> None:
        self._logs = home / "logs"
        self._wanted = home / "models_to_get"
        self._live = live
        self._find_models = find_models
        self._jobs_with = jobs_with
        self._tasks: dict[str, _Task] = {}
        self._offers: dict[str, _Offer] = {}
        self._outcomes: dict[str, tuple[Text, bool]] = {}
        self._sizes: dict[Path, int] = {}
        for name in [path.name for path in self._wanted.glob("*")]:
            if name in published():
                self._start("get", name)

    def manage(self, request: messages.ManageModel) -> None:
        """Raises NotFound, InvalidInput or Conflict."""
        name, action = request.name, request.action
        published_named(name)
        task = self._tasks.get(name)
        if action == "cancel":
            self._want(name, False)
            if task is not None:
                task.cancel()
            return
        if task is not None and task.action == action:  # the request was sent again
            return
        if task is not None:
            raise Conflict("The backend is busy with {model}. Wait until that has ended, or cancel it.", model=name)
        if action == "get" and not request.license_accepted:
            raise InvalidInput(
                "The license of {model} was not accepted. Read it at {page}, accept it, and fetch the model again.",
                model=name,
                page=" and ".join(one.license_at for one in published_named(name).repositories),
            )
        if action == "remove" and (count := self._jobs_with(name)):
            raise Conflict(
                "{model} is in use by jobs that have not ended ({count}). Wait for them, or cancel them, and remove it "
                "then.",
                model=name,
                count=count,
            )
        if action == "get":
            self._want(name, True)
        self._start(action, name)

    def listed(self) -> list[PublishedModel]:
        """All that can be fetched, and how far that is."""
        return [self._shown(name) for name in published()]

    def tick(self) -> None:
        """Note what has ended."""
        for name, task in list(self._tasks.items()):
            if not task.is_alive:
                del self._tasks[name]
                self._ended(name, task)

    def close(self) -> None:
        """End what runs. Downloads go on with the next start."""
        for task in self._tasks.values():
            task.close()

    def _start(self, action: str, name: str) -> None:
        log.info("%s %s", action, name)
        self._outcomes.pop(name, None)
        self._tasks[name] = _Task(action, name, self._logs / f"model_{name}.log")

    def _ended(self, name: str, task: _Task) -> None:
        self._want(name, False)
        self._sizes.clear()
        if task.error is not None:
            log.warning("%s %s: %s", task.action, name, task.error)
            if not isinstance(task.error, Canceled):
                self._outcomes[name] = (task.error.text, True)
        elif task.action == "offer":
            self._offers[name] = msgspec.convert(task.result, _Offer)
        else:
            self._offers.pop(name, None)
            self._outcomes[name] = (Text.of(_DONE[task.action], model=name), False)
        if task.action in ("get", "remove") and self._find_models is not None:
            self._live.models = self._find_models()

    def _want(self, name: str, wanted: bool) -> None:
        """Note that a download goes on after a restart, or not."""
        try:
            if wanted:
                self._wanted.mkdir(exist_ok=True)
                (self._wanted / name).touch()
            else:
                (self._wanted / name).unlink(missing_ok=True)
        except OSError as error:
            raise from_os_error(error) from error

    def _shown(self, name: str) -> PublishedModel:
        task, offer, folder = self._tasks.get(name), self._offers.get(name), fetched_folder(name)
        outcome, failed = self._outcomes.get(name, (None, False))
        size = self._size(folder) if folder is not None else offer.size if offer is not None else 0
        return PublishedModel(
            name=name, title=title_of(name), kind=published_named(name).kind, size=size,
            here=folder is not None or name in {model.name for model in self._live.models},
            licenses=offer.licenses if offer is not None else [], doing=task.action if task is not None else "",
            progress=_progress(name, task.report) if task is not None else None, outcome=outcome, failed=failed,
        )  # fmt: skip

    def _size(self, folder: Path) -> int:
        if folder not in self._sizes:
            total = 0
            for top, _, files in os.walk(folder):
                for file in files:
                    with suppress(OSError):
                        total += (Path(top) / file).stat().st_size
            self._sizes[folder] = total
        return self._sizes[folder]


def _progress(name: str, report: ProgressReport) -> ProgressReport:
    """With the megabytes of a download that are there."""
    if report.stage != FETCHING:
        return ProgressReport(report.stage, 0, 0)
    size = max(1, report.steps)
    return ProgressReport(FETCHING, min(fetched_bytes(name) // _MB, size), size)
