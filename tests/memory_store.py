"""The segment store as a plain fold in dicts: what every other store must agree with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stores.base import Applied, SegmentRef
from stores.model import DeltaGroup, SegmentKey, Version


class MemoryStore:
    """`SegmentStore` without a server: last writer wins over versions, and nothing else."""

    def __init__(self) -> None:
        self._topics: dict[str, int] = {}
        self._segments: dict[SegmentKey, SegmentRef] = {}
        self._named: dict[int, Version] = {}
        self._rows: dict[tuple[int, str], tuple[Version, bool]] = {}

    async def topic_id(self, topic: str) -> int:
        return self._topics.setdefault(topic, len(self._topics) + 1)

    async def resolve(self, groups: Sequence[DeltaGroup]) -> Mapping[SegmentKey, SegmentRef]:
        for group in groups:
            if group.segment not in self._segments:
                ref = SegmentRef(len(self._segments) + 1, group.context_kind, group.cohort.name, group.cohort.url)
                self._segments[group.segment] = ref
                self._named[ref.id] = group.version
        return {group.segment: self._segments[group.segment] for group in groups}

    async def rename(self, segment_id: int, group: DeltaGroup) -> None:
        ref = self._segments[group.segment]
        if self._named[segment_id] < group.version:
            self._named[segment_id] = group.version
            self._segments[group.segment] = ref._replace(
                cohort_name=group.cohort.name or ref.cohort_name, cohort_url=group.cohort.url or ref.cohort_url
            )

    async def apply(self, deltas: Sequence[tuple[int, DeltaGroup]]) -> Applied:
        stale: dict[int, int] = {}
        newest: dict[tuple[int, str], tuple[Version, bool]] = {}
        for segment_id, group in deltas:
            for context_key in group.context_keys:
                row = (segment_id, context_key)
                if row in newest:
                    stale[segment_id] = stale.get(segment_id, 0) + 1
                newest[row] = max(newest.get(row, (group.version, group.included)), (group.version, group.included))
        for row, (version, included) in newest.items():
            if row in self._rows and self._rows[row][0] >= version:
                stale[row[0]] = stale.get(row[0], 0) + 1
            else:
                self._rows[row] = (version, included)
        return Applied(stale)

    async def memberships(self) -> dict[tuple[str, str], tuple[bool, Version]]:
        """The whole state: by segment and context key, whether it is in, and the version that decided."""
        keys = {ref.id: key.key for key, ref in self._segments.items()}
        return {(keys[segment], key): (included, version) for (segment, key), (version, included) in self._rows.items()}

    async def included_counts(self) -> dict[str, int]:
        """By segment, how many are in."""
        counts = {key.key: 0 for key in self._segments}
        for (segment, _), (included, _) in (await self.memberships()).items():
            counts[segment] += included
        return counts

    async def cohort_names(self) -> dict[str, str | None]:
        """By segment, what the tool calls it."""
        return {key.key: ref.cohort_name for key, ref in self._segments.items()}
