"""The values that the whole project speaks in: versions, segments, deltas, memberships.

Everything here is frozen and knows no library, so that `consumers` can make these values and `stores` can keep them
without either knowing the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

TOPIC_ID_BITS, PARTITION_BITS, OFFSET_BITS = 9, 12, 42
DEFAULT_CONTEXT_KIND = "user"

_CONTEXT_KIND = re.compile(r"[A-Za-z0-9._-]+")


class PositionOverflowError(Exception):
    """A topic id, partition or offset is too large for the packed position, so no version can be made from it."""


class Position(NamedTuple):
    """Where in Kafka a record stands: the tie-breaker of its version, and the provenance of what it decided."""

    topic_id: int
    partition: int
    offset: int

    def pack(self) -> int:
        """All three in one bigint: topic id (9 bits), partition (12), offset (42)."""
        topic_id, partition, offset = self
        if topic_id >> TOPIC_ID_BITS or partition >> PARTITION_BITS or offset >> OFFSET_BITS:
            message = (
                f"{self} does not fit a position: {1 << TOPIC_ID_BITS} topics, {1 << PARTITION_BITS} partitions "
                f"a topic and 2^{OFFSET_BITS} offsets at most"
            )
            raise PositionOverflowError(message)
        return (topic_id << PARTITION_BITS | partition) << OFFSET_BITS | offset

    @classmethod
    def unpack(cls, packed: int) -> Position:
        """The reverse of `pack`."""
        rest, offset = divmod(packed, 1 << OFFSET_BITS)
        topic_id, partition = divmod(rest, 1 << PARTITION_BITS)
        return cls(topic_id, partition, offset)


class Version(msgspec.Struct, frozen=True, order=True, gc=False):
    """When a membership was decided. The larger one wins, whatever arrives first."""

    event_time_us: int
    position: int


class SegmentKey(NamedTuple):
    """The identity of a segment: its key within an environment. Neither ever changes."""

    environment: str
    key: str


class Cohort(msgspec.Struct, frozen=True, gc=False):
    """What the tool calls the audience that a segment follows. Names are never identity."""

    integration: str
    cohort_id: str
    name: str | None = None
    url: str | None = None


class DeltaGroup(msgspec.Struct, frozen=True, gc=False):
    """Deltas of one record that differ in nothing but the context: these contexts join, or leave, one segment.

    `places` are the members' zero-based places in their record, one for each key, to name a delta that fails later.
    Within one record a context is in at most one group of a segment.
    """

    segment: SegmentKey
    cohort: Cohort
    context_kind: str
    included: bool
    version: Version
    context_keys: Sequence[str]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.context_keys)

    def part(self, start: int, stop: int) -> DeltaGroup:
        """The deltas from `start` up to `stop`, as a group of their own."""
        return msgspec.structs.replace(self, context_keys=self.context_keys[start:stop], places=self.places[start:stop])


class Page(msgspec.Struct, frozen=True, gc=False):
    """One part of a replace session: a full copy of a cohort, which tools send in pages of one session.

    `pages` is None where a session does not say how many it has: it is complete from its first page on. `session` is
    None where the record is all of it.
    """

    session: str | None
    number: int = 1
    pages: int | None = None


class Clearing(msgspec.Struct, frozen=True, gc=False):
    """One record that puts out whoever is not named again: a drain, or (with `page`) a page of a replace session."""

    segment: SegmentKey
    cohort: Cohort
    context_kind: str
    version: Version
    page: Page | None = None

    def __len__(self) -> int:
        return 1


SegmentChange = DeltaGroup | Clearing
"""What a record does to one segment. Each of them may be the first that is seen of it."""


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    """A replace session of which pages are missing, so that it removes nobody yet."""

    environment: str
    segment: str
    session: str
    stored_pages: int
    pages: int
    since: datetime
    last_page_at: datetime


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment as the store holds it."""

    id: int
    environment: str
    key: str
    context_kind: str
    integration: str
    cohort_id: str
    cohort_name: str | None
    cohort_url: str | None
    name: str
    description: str
    tags: list[str]
    generation: int
    other_generation: int | None
    """Held by the projections beside it: the next one while it is filled, or the one before until it is swept."""
    included_count: int
    created_at: datetime
    last_change_at: datetime | None


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """The stored fact that a context is, or is no longer, in a segment, with the record that decided it."""

    environment: str
    segment: str
    context_kind: str
    context_key: str
    included: bool
    version: Version
    topic: str
    partition: int
    offset: int
    integration: str


def is_context_kind(text: str) -> bool:
    """Whether LaunchDarkly's SDKs accept this as the kind of a context (domain.md 3.3)."""
    return _CONTEXT_KIND.fullmatch(text) is not None and text not in ("kind", "multi")
