"""Whose files there are, which jobs need them, and which nobody needs any more."""

from __future__ import annotations

from motionbooth.server.database import Database


class Holdings:
    """What each owner holds in the blob store: uploads and results. A part of the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(self, owner: str, sha256: str, size: int) -> None:
        """The owner uploaded or was given this file, or wants it still."""
        with self._database.committed():
            self._database.do(
                "INSERT INTO holdings (owner, sha256, size, at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET at = excluded.at",
                owner, sha256, size, self._database.served(),
            )  # fmt: skip

    def want(self, owner: str, sha256: str) -> None:
        """A job of the owner names this file, which may be somebody else's so far; inside a transaction."""
        self._database.do(
            "INSERT INTO holdings (owner, sha256, size, at) VALUES "
            "(?, ?, coalesce((SELECT max(size) FROM holdings WHERE sha256 = ?), 0), ?) "
            "ON CONFLICT DO UPDATE SET at = excluded.at",
            owner, sha256, sha256, self._database.served(),
        )  # fmt: skip

    def note_fetched(self, owner: str, sha256: str) -> None:
        """The owner has the file's last byte."""
        if self._database.row("SELECT 1 FROM holdings WHERE owner = ? AND sha256 = ? AND NOT fetched", owner, sha256):
            with self._database.committed():
                self._database.do("UPDATE holdings SET fetched = 1 WHERE owner = ? AND sha256 = ?", owner, sha256)

    def used_by(self, owner: str) -> int:
        """Bytes that the owner's files take."""
        row = self._database.row("SELECT sum(size) FROM holdings WHERE owner = ?", owner)
        return int(row[0] or 0) if row is not None else 0

    def used(self) -> int:
        """Bytes that all files take; one that several hold is counted once."""
        row = self._database.row("SELECT sum(size) FROM (SELECT max(size) AS size FROM holdings GROUP BY sha256)")
        return int(row[0] or 0) if row is not None else 0

    def owners(self) -> list[str]:
        return [owner for (owner,) in self._database.rows("SELECT DISTINCT owner FROM holdings")]

    def has(self, owner: str, sha256: str) -> bool:
        """Whether the owner holds this file."""
        query = "SELECT 1 FROM holdings WHERE owner = ? AND sha256 = ?"
        return self._database.row(query, owner, sha256) is not None

    def holds(self, sha256: str) -> bool:
        """Whether anybody holds this file."""
        return self._database.row("SELECT 1 FROM holdings WHERE sha256 = ? LIMIT 1", sha256) is not None

    def let_go(self, owner: str, files: list[str]) -> list[str]:
        """The owner keeps of these what its jobs and subjects need. Those that nobody holds now, to be removed."""
        with self._database.committed():
            for sha256 in files:
                if not self._is_needed_by(owner, sha256):
                    self._database.do("DELETE FROM holdings WHERE owner = ? AND sha256 = ?", owner, sha256)
        return [sha256 for sha256 in files if not self.holds(sha256)]

    def unwanted(self, owner: str, before: float) -> list[str]:
        """The owner's files that were uploaded or wanted last before that time (see Database.served)."""
        rows = self._database.rows("SELECT sha256 FROM holdings WHERE owner = ? AND at < ?", owner, before)
        return [sha256 for (sha256,) in rows]

    def _is_needed_by(self, owner: str, sha256: str) -> bool:
        """Whether a job of the owner in the store names the file or gave it, or a subject is made of it."""
        jobs = "JOIN jobs ON jobs.number = job WHERE sha256 = ? AND owner = ? LIMIT 1"
        queries = (
            f"SELECT 1 FROM needs {jobs}",
            f"SELECT 1 FROM results {jobs}",
            "SELECT 1 FROM subjects WHERE weights = ? AND owner = ?",
            "SELECT 1 FROM subjects WHERE picture = ? AND owner = ?",
        )
        return any(self._database.row(query, sha256, owner) is not None for query in queries)
