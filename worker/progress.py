"""How far a target is behind the change feed, and of what moment it may so be called whole."""

from __future__ import annotations

import time
from collections import deque

from stores.postgres.change_feed import FeedPosition, StoredUpTo

TELL_EVERY_S = 1.0
LOOK_EVERY_S = 0.1
POSITIONS = 60
"""So many moments may wait for their last transaction to end."""


class Progress:
    """How far the feed is applied, as against the moments at which its end was looked up."""

    def __init__(self) -> None:
        self.applied: FeedPosition | None = None
        """The feed was read to its end after this moment."""
        self.whole: FeedPosition | None = None
        """Everything that was committed by this moment is applied."""
        self._waiting: deque[FeedPosition] = deque(maxlen=POSITIONS)
        self._told_at = float("-inf")
        self._stored_up_to: StoredUpTo = {}
        self._before: dict[int, StoredUpTo] = {}
        """Of segments that wait for a sweep, what was stored when nobody had seen that yet. The oldest comes first."""

    @property
    def latest(self) -> FeedPosition | None:
        """The last one that was observed."""
        return self._waiting[-1] if self._waiting else self.whole

    def is_time_to_tell(self) -> bool:
        """Once in a while; before the target is whole, at every look."""
        now = time.monotonic()
        if now - self._told_at < (TELL_EVERY_S if self.whole else LOOK_EVERY_S):
            return False
        self._told_at = now
        return True

    def observe(self, position: FeedPosition) -> None:
        """Where the feed ends at some moment.

        Whom a clearing puts out is in the feed once it is swept. Until then nothing newer than it counts as stored.
        """
        waiting = {segment: before for segment, before in self._before.items() if segment in position.unswept}
        self._before = waiting | dict.fromkeys(position.unswept - waiting.keys(), self._stored_up_to)
        self._stored_up_to = position.stored_up_to
        oldest = next(iter(self._before.values()), position.stored_up_to)
        self._waiting.append(position._replace(stored_up_to=oldest))

    def applied_to(self, position: FeedPosition) -> None:
        """All that readers saw at this moment is applied.

        So is all that was committed by an earlier moment, if no transaction of that time runs any more.
        """
        self.applied = position
        while self._waiting and self._waiting[0].next_xid <= position.horizon:
            self.whole = self._waiting.popleft()
