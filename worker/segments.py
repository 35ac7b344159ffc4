"""Which segment a group of deltas belongs to: resolved through a bounded cache, created on first sight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stores.base import SegmentRef, SegmentStore
from stores.model import DeltaGroup, SegmentKey

CACHED_SEGMENTS = 100_000


class Resolved(NamedTuple):
    """The deltas with their segments' ids, and those whose context kind is not their segment's."""

    deltas: list[tuple[int, DeltaGroup]]
    mismatched: list[DeltaGroup]


class SegmentResolver:
    """Finds and creates segments. What it remembers never changes, but for the names, which the store checks again."""

    def __init__(self, store: SegmentStore, *, cached_segments: int = CACHED_SEGMENTS) -> None:
        self._store = store
        self._known: OrderedDict[SegmentKey, SegmentRef] = OrderedDict()
        self._cached_segments = cached_segments

    async def resolve(self, groups: Sequence[DeltaGroup]) -> Resolved:
        """Raises what the store raises; calling it again is harmless."""
        await self._learn(groups)
        deltas: list[tuple[int, DeltaGroup]] = []
        mismatched: list[DeltaGroup] = []
        for group in groups:
            segment = self._known[group.segment]
            if group.context_kind == segment.context_kind:
                deltas.append((segment.id, group))
            else:
                mismatched.append(group)
        await self._rename(groups)
        self._forget()
        return Resolved(deltas, mismatched)

    async def _learn(self, groups: Iterable[DeltaGroup]) -> None:
        known = self._known
        unknown = [group for group in groups if group.segment not in known]
        if unknown:
            known.update(await self._store.resolve(unknown))

    async def _rename(self, groups: Iterable[DeltaGroup]) -> None:
        """Tells the store of each new name once; the newest group of the segment decides."""
        renamed: dict[SegmentKey, DeltaGroup] = {}
        for group in groups:
            segment, cohort = self._known[group.segment], group.cohort
            if (cohort.name and cohort.name != segment.cohort_name) or (cohort.url and cohort.url != segment.cohort_url):
                before = renamed.get(group.segment)
                if before is None or before.version < group.version:
                    renamed[group.segment] = group
        for key, group in renamed.items():
            segment, cohort = self._known[key], group.cohort
            await self._store.rename(segment.id, group)
            self._known[key] = segment._replace(
                cohort_name=cohort.name or segment.cohort_name, cohort_url=cohort.url or segment.cohort_url
            )

    def _forget(self) -> None:
        while len(self._known) > self._cached_segments:
            self._known.popitem(last=False)
