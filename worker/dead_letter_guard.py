"""The guard against a bad deploy that would drain a whole topic into the dead letters."""

from __future__ import annotations

from collections import deque


class DeadLetterGuard:
    """Watches the share of each topic's last records that became dead letters.

    A record of which only some members were rejected counts with their share of it. A topic whose window is full and
    whose share is above the limit is held; it stays so until the worker is started again by a person who mended it.
    """

    def __init__(self, *, max_ratio: float, window_records: int) -> None:
        self._max_ratio = max_ratio
        self._window_records = window_records
        self._windows: dict[str, deque[float]] = {}
        self._sums: dict[str, float] = {}
        self.held_topics: set[str] = set()

    def observe(self, topic: str, rejected_share: float) -> bool:
        """Takes in one record (0 nothing rejected, 1 all of it). True when the topic is held from now on."""
        window = self._windows.setdefault(topic, deque())
        window.append(rejected_share)
        total = self._sums[topic] = self._sums.get(topic, 0.0) + rejected_share
        if len(window) > self._window_records:
            total = self._sums[topic] = total - window.popleft()
        if len(window) < self._window_records or total <= self._max_ratio * self._window_records:
            return False
        if topic in self.held_topics:
            return False
        self.held_topics.add(topic)
        return True
