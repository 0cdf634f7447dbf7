"""How much of the server's time each key may take."""

from __future__ import annotations

import time

_SECONDS_OF_A_REQUEST = 0.0002


class RateLimit:
    """A token bucket for each key: `rate` requests a second, in bursts of up to two seconds' worth. 0: no limit.

    A request costs one token, or one for each 0.2 ms that it keeps the server's processor busy: at 1000 a second, a key
    takes at most a fifth of its time.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and at which time

    def allows(self, key: str) -> bool:
        """Whether the key has a token for another request."""
        return not self.rate or self._left(key) >= 1

    def charge(self, key: str, seconds: float) -> None:
        """The key's request took `seconds` of the processor's time."""
        if self.rate:
            left = self._left(key) - max(1.0, seconds / _SECONDS_OF_A_REQUEST)
            self._buckets[key] = (max(left, -2.0 * self.rate), time.monotonic())

    def _left(self, key: str) -> float:
        left, at = self._buckets.get(key, (2.0 * self.rate, 0.0))
        return min(2.0 * self.rate, left + (time.monotonic() - at) * self.rate)
