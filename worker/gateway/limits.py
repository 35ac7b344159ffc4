"""What one client may cost: requests a second for each token; requests, and bytes of bodies, at one time for all."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Self

from worker.gateway.answers import RETRY_AFTER_S, Refused, unavailable

IN_FLIGHT_REQUESTS = 512
IN_FLIGHT_BYTES = 256 << 20
BURST_S = 2.0
"""A token that was silent may send as much at once as it may in so long."""
KNOWN_TOKENS = 10_000
_ROUNDING_S = 1e-6


class RateLimit:
    """So many requests a second for each token, evenly refilled."""

    def __init__(
        self,
        requests_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rate = requests_per_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, token_id: str) -> None:
        """Counts one request of this token. Raises `Refused` where it is one too many."""
        now = self._clock()
        full_at = max(now, self._full_at.get(token_id, now)) + 1 / self._rate
        over_s = full_at - now - BURST_S
        if over_s > _ROUNDING_S:
            raise Refused(
                429,
                "rate_limited",
                "This token has sent too many requests; send the same again later",
                {
                    "Retry-After": str(max(RETRY_AFTER_S, round(over_s))),
                    # Milliseconds since 1970, as LaunchDarkly tells it.
                    "X-Ratelimit-Reset": str(round((self._wall_clock() + over_s) * 1000)),
                },
            )
        self._full_at[token_id] = full_at
        self._full_at.move_to_end(token_id)
        if len(self._full_at) > KNOWN_TOKENS:
            self._full_at.popitem(last=False)


class InFlight:
    """What is being done at this moment, bounded: nobody waits in a queue without an end."""

    def __init__(self, *, requests: int = IN_FLIGHT_REQUESTS, body_bytes: int = IN_FLIGHT_BYTES) -> None:
        self._most_requests = requests
        self._most_bytes = body_bytes
        self.requests = 0
        self.body_bytes = 0

    def request(self) -> BodyAccount:
        """One more request while it is entered. Entering it raises `Refused` where it is too many."""
        return BodyAccount(self)

    def begin(self) -> None:
        """Counts a request. Raises `Refused` where it is too many."""
        if self.requests >= self._most_requests:
            raise unavailable("Too many requests are in flight; send the same again later")
        self.requests += 1

    def end(self, held: int) -> None:
        """It is over, and so are the bytes that it held."""
        self.requests -= 1
        self.body_bytes -= held

    def add(self, body_bytes: int) -> None:
        """Counts bytes that are held from now on. Raises `Refused` where they are too many."""
        if self.body_bytes + body_bytes > self._most_bytes:
            raise unavailable("Too many bytes are in flight; send the same again later")
        self.body_bytes += body_bytes


class BodyAccount:
    """One request while it is entered, and the bytes that it holds."""

    __slots__ = ("_all", "held")

    def __init__(self, all_requests: InFlight) -> None:
        self._all = all_requests
        self.held = 0

    def __enter__(self) -> Self:
        self._all.begin()
        return self

    def __exit__(self, *exc: object) -> None:
        self._all.end(self.held)

    def add(self, body_bytes: int) -> None:
        """Counts bytes. Raises `Refused`."""
        self._all.add(body_bytes)
        self.held += body_bytes
