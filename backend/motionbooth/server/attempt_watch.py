"""Whether a running attempt is alive, makes progress, and is within its time."""

from __future__ import annotations

from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.reports import ProgressReport

from motionbooth.server.attempts import TimeLimits


class AttemptWatch:
    """Times are those of time.monotonic. Whatever the worker sends proves that it lives."""

    def __init__(self, limits: TimeLimits, now: float) -> None:
        self._limits = limits
        self._began_at = self._heard_at = self._moved_at = now
        self._at: tuple[str, int, int] = ("", 0, 0)

    def heard(self, now: float) -> None:
        self._heard_at = now

    def progressed(self, report: ProgressReport, now: float) -> None:
        at = (report.stage, report.step, report.steps)
        if at != self._at:
            self._at, self._moved_at = at, now

    def forgive(self, seconds: float) -> None:
        """For so long this process could not listen."""
        self._heard_at += seconds
        self._moved_at += seconds

    def overtime(self, now: float) -> MotionBoothError | None:
        """Why the attempt and its job must end."""
        if not self._limits.wall or now - self._began_at <= self._limits.wall:
            return None
        return MotionBoothError(
            "The job ran longer than {hours:g} hours, which is the limit of its key. Use fewer steps or frames, or ask "
            "the backend's owner to raise the limit (motionbooth serve --job-hours).",
            hours=self._limits.wall / 3600,
        )

    def stuck(self, now: float) -> MotionBoothError | None:
        """Why the attempt must end; another may succeed."""
        if now - self._heard_at > self._limits.silence:
            return MotionBoothError(
                "The worker did not answer for {seconds:.0f} seconds and was ended.", seconds=self._limits.silence
            )
        if now - self._moved_at > self._limits.stall:
            return MotionBoothError(
                "The worker made no progress for {minutes:g} minutes (stage: {stage}) and was ended.",
                minutes=self._limits.stall / 60,
                stage=self._at[0] or "start",
            )
        return None
