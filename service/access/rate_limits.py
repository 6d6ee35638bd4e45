"""Rate limits of keys: a token bucket for each, in this process. Also the interval at which a key's use is noted.

It guards the process that counts, so it needs no database: a counter there would cost every request the write that
the limit is to save. Several services behind one address allow their sum.
"""

import threading
import time
from collections.abc import Callable
from math import ceil

from service.errors import TooManyRequests

BURST_S = 10  # seconds' worth of requests that may come at once


class RateLimits:
    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """per_s: requests a second and key in the long run; 0 is no limit."""
        self._per_s, self._clock = per_s, clock
        self._lock = threading.Lock()
        self._left: dict[int, tuple[float, float]] = {}  # by key: requests left, and when that was

    def take(self, key_id: int) -> None:
        """Raises `TooManyRequests`."""
        if self._per_s == 0:
            return
        most = max(1.0, self._per_s * BURST_S)
        with self._lock:
            now = self._clock()
            left, since = self._left.get(key_id, (most, now))
            left = min(most, left + (now - since) * self._per_s)
            self._left[key_id] = (max(0.0, left - 1), now) if left >= 1 else (left, now)
        if left < 1:
            raise TooManyRequests(per_s=self._per_s, retry_after_s=ceil((1 - left) / self._per_s))


class UseNotes:
    """The keys whose `last_used_at` is being written: one request a minute does it, however many see that it is due.

    If all of them did, they would hold all threads while they wait for SQLite's write lock, and whoever has the lock
    would wait for a thread.
    """

    EVERY_S = 60.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[int, float] = {}

    def due(self, key_id: int) -> bool:
        with self._lock:
            now = time.monotonic()
            if now - self._since.get(key_id, -self.EVERY_S) < self.EVERY_S:
                return False
            self._since[key_id] = now
            return True
