"""How fast a table bears to be written: one pace for all requests, found by trying."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from stores.errors import StoreUnavailableError

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 5.0
PATIENCE_S = 30.0
"""So long a table may refuse everything before it counts as not available."""


class Pace:
    """A wait before each request: a refusal doubles that under which it was sent, a success halves it.

    Counted from the wait under which a request was sent, so that a burst of refusals doubles it once. Where half of
    what is sent is refused it stays: the table does what it can.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wait_s = 0.0
        self._refused_since: float | None = None

    @property
    def wait_s(self) -> float:
        """The wait as it is, before its jitter."""
        return self._wait_s

    async def turn(self) -> float:
        """Returns when the next request may be sent, with the wait to tell of it afterwards."""
        wait_s = self._wait_s
        if wait_s:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret depends on it
        return wait_s

    def succeeded(self, wait_s: float) -> None:
        """A request that was sent under this wait was carried out."""
        self._refused_since = None
        self._wait_s = wait_s / 2 if wait_s > FIRST_WAIT_S else 0.0

    def throttled(self, cause: str, wait_s: float | None = None) -> None:
        """One was not. Raises `StoreUnavailableError` if none was for too long."""
        before_s = self._wait_s if wait_s is None else wait_s
        self._wait_s = min(max(2 * before_s, FIRST_WAIT_S), LONGEST_WAIT_S)
        now = self._clock()
        if self._refused_since is None:
            self._refused_since = now
        if now - self._refused_since > PATIENCE_S:
            self._refused_since = None
            raise StoreUnavailableError("DynamoDB", cause)
