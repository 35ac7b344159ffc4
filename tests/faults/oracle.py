"""What must be in the store: a plain fold over everything that stands in the topics.

Written apart from the normalizer and the store, and knows neither: a record's meaning is the one it was made from, its
place and time are Kafka's, and a version is a tuple.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.faults.stream import Clears, Meaning

FUTURE_SKEW_US = 300_000_000

Version = tuple[int, int, int, int]
"""Event time in microseconds, topic id, partition, offset."""

EARLIEST: Version = (-1, -1, -1, -1)


class Stored(NamedTuple):
    """A membership: in or out, and the record that decided."""

    included: bool
    version: Version


class Oracle:
    """Last writer wins, over versions; what a clearing covers is out, by the clearing's version."""

    def __init__(self, topic_ids: Mapping[str, int]) -> None:
        self._topic_ids = topic_ids
        self._members: dict[tuple[str, str], Stored] = {}
        self._pages: dict[tuple[str, str, int], dict[int, Version]] = {}
        self.dead: set[tuple[str, int, int, str]] = set()
        """Topic, partition, offset and reason of every dead letter."""

    def take(self, topic: str, partition: int, offset: int, timestamp_ms: int, meaning: Meaning) -> None:
        """One record as it stands in its topic."""
        arrived_us = timestamp_ms * 1000
        place = (self._topic_ids.get(topic, 0), partition, offset)
        # Of a context that a record names twice, the newest counts and of equally old ones the last.
        for said in meaning.said:
            clock = said.clock_us
            event_time = arrived_us if clock is None or clock > arrived_us + FUTURE_SKEW_US else clock
            stored = Stored(said.included, (event_time, *place))
            known = self._members.get((said.segment, said.context_key))
            if known is None or known.version <= stored.version:
                self._members[said.segment, said.context_key] = stored
        if meaning.clears:
            self._clear(meaning.clears, (arrived_us, *place))
        self.dead |= {(topic, partition, offset, reason) for reason in meaning.dead}

    def members(self) -> dict[tuple[str, str], Stored]:
        """Everybody who was ever named, by segment and context."""
        cleared = {segment: self._cleared(segment) for segment, _ in self._members}
        return {
            (segment, key): Stored(included=False, version=cleared[segment])
            if stored.version < cleared[segment]
            else stored
            for (segment, key), stored in self._members.items()
        }

    def _clear(self, clears: Clears, version: Version) -> None:
        session = clears.session or f"only {version}"
        pages = self._pages.setdefault((clears.segment, session, clears.pages), {})
        pages[clears.page] = max(version, pages.get(clears.page, EARLIEST))

    def _cleared(self, segment: str) -> Version:
        complete = (
            min(pages.values())
            for (of, _, count), pages in self._pages.items()
            if of == segment and len(pages) == count
        )
        return max(complete, default=EARLIEST)
