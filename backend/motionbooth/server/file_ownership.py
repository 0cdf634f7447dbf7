"""Which keys own which files of the blob store, and which jobs and subjects refer to them."""

from __future__ import annotations

from motionbooth.server.database import Database


class FileOwnership:
    """A file is owned by each key that uploaded it, was given it as a result, or names it in a job."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._awaited: set[tuple[str, str]] = set()  # uploads that the next job of their owner is to name

    def add_upload(self, owner: str, sha256: str, size: int) -> None:
        """The owner has uploaded this file, most likely for a job that will be submitted in a moment."""
        self._awaited.add((owner, sha256))
        self.add(owner, sha256, size)

    def add(self, owner: str, sha256: str, size: int) -> None:
        """The owner has uploaded this file, or a job of the owner has made it."""
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO file_owners (owner, sha256, size, used_at) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET used_at = excluded.used_at",
                owner, sha256, size, self._database.seconds_open(),
            )  # fmt: skip

    def add_input(self, owner: str, sha256: str) -> None:
        """A job of the owner names this file, which may be another user's; inside a transaction."""
        self._awaited.discard((owner, sha256))
        row = self._database.row("SELECT max(size) FROM file_owners WHERE sha256 = ?", sha256)
        self.add(owner, sha256, row[0] or 0 if row is not None else 0)

    def mark_downloaded(self, owner: str, sha256: str) -> None:
        """The owner has received the last byte of the file."""
        owned = "owner = ? AND sha256 = ? AND NOT downloaded"
        if self._database.row(f"SELECT 1 FROM file_owners WHERE {owned}", owner, sha256):
            with self._database.transaction():
                self._database.execute(f"UPDATE file_owners SET downloaded = 1 WHERE {owned}", owner, sha256)

    def bytes_of(self, owner: str) -> int:
        """Total size of the owner's files and of the specs of the owner's jobs."""
        files = self._sum("SELECT sum(size) FROM file_owners WHERE owner = ?", owner)
        return files + self._sum("SELECT sum(spec_bytes) FROM jobs WHERE owner = ?", owner)

    def total_bytes(self) -> int:
        """Total size of all files; a file of several owners counts once."""
        return self._sum("SELECT sum(size) FROM (SELECT max(size) AS size FROM file_owners GROUP BY sha256)")

    def owners(self) -> list[str]:
        return [owner for (owner,) in self._database.rows("SELECT DISTINCT owner FROM file_owners")]

    def owns(self, owner: str, sha256: str) -> bool:
        query = "SELECT 1 FROM file_owners WHERE owner = ? AND sha256 = ?"
        return self._database.row(query, owner, sha256) is not None

    def is_owned(self, sha256: str) -> bool:
        """Whether any key owns the file."""
        return self._database.row("SELECT 1 FROM file_owners WHERE sha256 = ? LIMIT 1", sha256) is not None

    def file_after(self, sha256: str) -> str | None:
        """The next file in the order of their names; None after the last one."""
        row = self._database.row("SELECT sha256 FROM file_owners WHERE sha256 > ? ORDER BY sha256 LIMIT 1", sha256)
        return None if row is None else str(row[0])

    def release(self, owner: str, files: list[str]) -> list[str]:
        """End the ownership of those files that no job or subject of the owner refers to, or soon will.

        Returns the files without any owner now, for removal after the commit.
        """
        with self._database.transaction():
            for sha256 in files:
                if (owner, sha256) not in self._awaited and not self._is_referenced(owner, sha256):
                    self._database.execute("DELETE FROM file_owners WHERE owner = ? AND sha256 = ?", owner, sha256)
        return [sha256 for sha256 in files if not self.is_owned(sha256)]

    def release_unused(self, owner: str, before: float) -> list[str]:
        """As `release`, of all files that were last uploaded, made or named before then (see Database.seconds_open)."""
        rows = self._database.rows("SELECT sha256 FROM file_owners WHERE owner = ? AND used_at < ?", owner, before)
        files = [sha256 for (sha256,) in rows]
        self._awaited.difference_update((owner, sha256) for sha256 in files)
        return self.release(owner, files)

    def _sum(self, query: str, *values: str) -> int:
        ((total,),) = self._database.rows(query, *values)
        return int(total or 0)

    def _is_referenced(self, owner: str, sha256: str) -> bool:
        of_owner = "JOIN jobs ON jobs.number = job WHERE sha256 = ? AND owner = ? LIMIT 1"
        queries = (
            f"SELECT 1 FROM inputs {of_owner}",
            f"SELECT 1 FROM results {of_owner}",
            "SELECT 1 FROM subjects WHERE weights = ? AND owner = ?",
            "SELECT 1 FROM subjects WHERE picture = ? AND owner = ?",
        )
        return any(self._database.row(query, sha256, owner) is not None for query in queries)
