"""What the worker needs of a segment store. PostgreSQL keeps these promises; tests run them as one contract suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from stores.model import Clearing, DeltaGroup, SegmentChange, SegmentKey


class SegmentRef(NamedTuple):
    """What must be known of a segment to write to it."""

    id: int
    context_kind: str
    cohort_name: str | None
    cohort_url: str | None


class Applied(NamedTuple):
    """What a write did: for each segment id, how many of its deltas changed nothing (older, or already stored)."""

    stale: Mapping[int, int]


class SegmentStore(Protocol):
    """Where memberships rest. Every method raises one of `stores.errors` and nothing else."""

    async def topic_id(self, topic: str) -> int:
        """The id of this topic in positions, given out when the topic is first seen. It never changes."""
        ...

    async def resolve(self, changes: Sequence[SegmentChange]) -> Mapping[SegmentKey, SegmentRef]:
        """The segments of these changes. A new one is created with the context kind of its first change."""
        ...

    async def rename(self, segment_id: int, change: SegmentChange) -> None:
        """Takes over the cohort's name and url from this change, unless a newer record named it or a person did."""
        ...

    async def apply(self, deltas: Sequence[tuple[int, DeltaGroup]]) -> Applied:
        """Makes all these deltas durable, or none. Older versions change nothing, so repeating it is harmless."""
        ...

    async def clear(self, clearings: Sequence[tuple[int, Clearing]]) -> None:
        """Makes these clearings durable, after the members that their records name.

        A drain puts out every membership that is older. A replace session does so from its oldest page on, once all of
        its pages are here; of a page that came twice the newer one counts, since the session then began anew. A session
        that does not say how many pages it has begins with its oldest one and is complete with any. In any order and
        any repetition the end is the same.
        """
        ...
