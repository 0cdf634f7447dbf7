"""The jobs of a backend on disk: queries and transitions over one database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from motionbooth.server.database import Database
from motionbooth.server.file_ownership import FileOwnership
from motionbooth.server.job_queries import JobQueries
from motionbooth.server.job_transitions import JobTransitions
from motionbooth.server.model_version import ModelVersion, program_version


class Store:
    """The store in the file `path`. Raises Conflict if another server has it open."""

    def __init__(
        self,
        path: Path,
        model_version: ModelVersion = program_version,
        open_database: Callable[[Path], Database] = Database,
    ) -> None:
        self.database = open_database(path)
        self.ownership = FileOwnership(self.database)
        self.queries = JobQueries(self.database)
        self.transitions = JobTransitions(self.database, self.queries, self.ownership, model_version)

    def close(self) -> None:
        self.database.close()
