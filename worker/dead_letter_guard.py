"""The guard against a bad deploy that would drain a whole topic into the dead letters."""

from __future__ import annotations

from collections import deque


class TopicHeldError(Exception):
    """What is asked for can't be reached while a topic is held. The text says which, and what to do."""


class DeadLetterGuard:
    """Watches the share of each topic's last records that became dead letters.

    A record of which only some members were rejected counts with their share of it. A topic whose window is full and
    whose share is above the limit is held; it stays so until the worker is started again by a person who mended it.
    """

    def __init__(self, *, max_ratio: float, window_records: int) -> None:
        self._window_records = window_records
        self._most = max_ratio * window_records
        self._seen: dict[str, int] = {}
        self._rejected: dict[str, deque[tuple[int, float]]] = {}
        self.held_topics: set[str] = set()

    def observe(self, topic: str, rejected_share: float) -> bool:
        """Takes in one record (0 nothing rejected, 1 all of it). True when the topic is held from now on."""
        self._seen[topic] = self._seen.get(topic, 0) + 1
        return self._reject(topic, rejected_share) if rejected_share else False

    def observe_later(self, topic: str, rejected_records: float, *, among: int) -> bool:
        """Takes in that of so many records, which were observed before, some were rejected after all, by the store."""
        return self._reject(topic, rejected_records * min(1.0, self._window_records / among))

    def _reject(self, topic: str, rejected_share: float) -> bool:
        # Only records that were rejected, each with its number, are remembered: most never are.
        seen = self._seen.get(topic, 0)
        rejected = self._rejected.setdefault(topic, deque())
        rejected.append((seen, rejected_share))
        while rejected[0][0] <= seen - self._window_records:
            rejected.popleft()
        if seen < self._window_records or topic in self.held_topics:
            return False
        if sum(share for _, share in rejected) <= self._most:
            return False
        self.held_topics.add(topic)
        return True
