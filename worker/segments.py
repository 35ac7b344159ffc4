"""Which segment a group of deltas belongs to: resolved through a bounded cache, created on first sight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
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
        known = self._known
        resolved = Resolved([], [])
        renamed: dict[SegmentKey, DeltaGroup] = {}
        for group in groups:
            segment, cohort = known[group.segment], group.cohort
            if group.context_kind == segment.context_kind:
                resolved.deltas.append((segment.id, group))
            else:
                resolved.mismatched.append(group)
            if (cohort.name != segment.cohort_name and cohort.name) or (
                cohort.url != segment.cohort_url and cohort.url
            ):
                newest = renamed.setdefault(group.segment, group)
                if newest.version < group.version:
                    renamed[group.segment] = group
        await self._rename(renamed)
        self._forget()
        return resolved

    async def _learn(self, groups: Iterable[DeltaGroup]) -> None:
        known = self._known
        unknown = [group for group in groups if group.segment not in known]
        if unknown:
            known.update(await self._store.resolve(unknown))

    async def _rename(self, renamed: Mapping[SegmentKey, DeltaGroup]) -> None:
        """Tells the store of the newest name of each; the store knows whether a newer record named it before."""
        for key, group in renamed.items():
            segment, cohort = self._known[key], group.cohort
            await self._store.rename(segment.id, group)
            self._known[key] = segment._replace(
                cohort_name=cohort.name or segment.cohort_name, cohort_url=cohort.url or segment.cohort_url
            )

    def _forget(self) -> None:
        while len(self._known) > self._cached_segments:
            self._known.popitem(last=False)
