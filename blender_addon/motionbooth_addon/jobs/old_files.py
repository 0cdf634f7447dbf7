"""Removes rendered guides and files of trainings that are no longer needed. No bpy."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from .._protocol.connection import written_at
from ..job_store import JobRecord, TrainRequest

KEPT = 3  # of each shot, for its next clip and for running its jobs again
LEAST_AGE = 3600.0  # seconds; another Blender may be about to send the job of a younger one


def remove_old_guides(folder: Path, records: Iterable[JobRecord]) -> None:
    """Remove the guides in `folder`, except for the last ones of each shot and those of unfinished jobs.

    records: all jobs, oldest first.
    """
    needed: set[str] = set()  # by name: a link may have led to them
    latest: dict[str, list[str]] = {}
    for record in reversed(list(records)):
        if record.guide is None or record.guide.clip:
            continue
        place, own = Path(record.guide.folder).name, latest.setdefault(record.shot, [])
        if place not in own:
            own.append(place)
        if place in own[:KEPT] or not record.ended:
            needed.add(place)
    _remove_all_but(needed, folder)


def remove_old_trainings(folder: Path, records: Iterable[JobRecord]) -> None:
    """Remove the 3D objects, their images and the results of trainings whose jobs were removed from `folder`."""
    needed: set[str] = set()
    for record in records:
        needed.add(record.id)
        if isinstance(record.request, TrainRequest) and record.request.render is not None:
            needed.add(Path(record.request.render.blend).parent.name)
    _remove_all_but(needed, folder)


def _remove_all_but(needed: set[str], folder: Path) -> None:
    for found in folder.glob("*"):
        if found.name not in needed and time.time() - (written_at(found) or 0) / 1e9 > LEAST_AGE:
            shutil.rmtree(found, ignore_errors=True)
