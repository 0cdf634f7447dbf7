"""How many requests each key may send."""

from __future__ import annotations

import time


class RateLimit:
    """A token bucket for each key: `rate` requests a second, in bursts of up to two seconds' worth. 0: no limit."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._buckets: dict[str, tuple[float, float]] = {}  # requests left, and at which time

    def allows(self, key: str) -> bool:
        """Count a request of the key; False if it is one too many."""
        if not self.rate:
            return True
        now = time.monotonic()
        left, at = self._buckets.get(key, (2.0 * self.rate, now))
        left = min(2.0 * self.rate, left + (now - at) * self.rate)
        allowed = left >= 1
        self._buckets[key] = (left - allowed, now)
        return allowed
