"""The segment store as a plain fold in dicts: what every other store must agree with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stores.base import Applied, SegmentRef
from stores.model import Clearing, DeltaGroup, SegmentChange, SegmentKey, Version


class MemoryStore:
    """`SegmentStore` without a server: last writer wins over versions, and what a clearing covers is out."""

    def __init__(self) -> None:
        self._topics: dict[str, int] = {}
        self._segments: dict[SegmentKey, SegmentRef] = {}
        self._named: dict[int, Version] = {}
        self._rows: dict[tuple[int, str], tuple[Version, bool]] = {}
        self._pages: dict[tuple[int, str, int], dict[int, Version]] = {}

    async def topic_id(self, topic: str) -> int:
        return self._topics.setdefault(topic, len(self._topics) + 1)

    async def resolve(self, changes: Sequence[SegmentChange]) -> Mapping[SegmentKey, SegmentRef]:
        for change in changes:
            if change.segment not in self._segments:
                ref = SegmentRef(len(self._segments) + 1, change.context_kind, change.cohort.name, change.cohort.url)
                self._segments[change.segment] = ref
                self._named[ref.id] = change.version
        return {change.segment: self._segments[change.segment] for change in changes}

    async def rename(self, segment_id: int, change: SegmentChange) -> None:
        ref = self._segments[change.segment]
        if self._named[segment_id] < change.version:
            self._named[segment_id] = change.version
            self._segments[change.segment] = ref._replace(
                cohort_name=change.cohort.name or ref.cohort_name, cohort_url=change.cohort.url or ref.cohort_url
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

    async def clear(self, clearings: Sequence[tuple[int, Clearing]]) -> None:
        for segment_id, clearing in clearings:
            page, version = clearing.page, clearing.version
            if page is None or page.session is None:
                session, pages, number = f"#{version.position}", 1, 1
            else:
                session, pages, number = page.session, page.pages or 0, page.number
            stored = self._pages.setdefault((segment_id, session, pages), {})
            newer = max if pages else min
            stored[number] = newer(stored.get(number, version), version)

    def _cleared(self, segment_id: int) -> Version | None:
        """From where on memberships of this segment count."""
        return max(
            (
                min(pages.values())
                for (segment, _, count), pages in self._pages.items()
                if segment == segment_id and len(pages) >= count
            ),
            default=None,
        )

    async def memberships(self) -> dict[tuple[str, str], tuple[bool, Version]]:
        """The whole state: by segment and context key, whether it is in, and the version that decided."""
        keys = {ref.id: key.key for key, ref in self._segments.items()}
        cleared = {segment_id: self._cleared(segment_id) for segment_id in keys}
        return {
            (keys[segment], key): (False, clearing)
            if (clearing := cleared[segment]) is not None and version < clearing
            else (included, version)
            for (segment, key), (version, included) in self._rows.items()
        }

    async def included_counts(self) -> dict[str, int]:
        """By segment, how many are in."""
        counts = {key.key: 0 for key in self._segments}
        for (segment, _), (included, _) in (await self.memberships()).items():
            counts[segment] += included
        return counts

    async def cohort_names(self) -> dict[str, str | None]:
        """By segment, what the tool calls it."""
        return {key.key: ref.cohort_name for key, ref in self._segments.items()}
