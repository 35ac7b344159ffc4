"""What the worker needs of a segment store. PostgreSQL keeps these promises; tests run them as one contract suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from stores.model import DeltaGroup, SegmentKey


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

    async def resolve(self, groups: Sequence[DeltaGroup]) -> Mapping[SegmentKey, SegmentRef]:
        """The segments of these groups. A new one is created with the context kind of its first group."""
        ...

    async def rename(self, segment_id: int, group: DeltaGroup) -> None:
        """Takes over the cohort's name and url from this group, unless a newer record named it or a person did."""
        ...

    async def apply(self, deltas: Sequence[tuple[int, DeltaGroup]]) -> Applied:
        """Makes all these deltas durable, or none. Older versions change nothing, so repeating it is harmless."""
        ...
