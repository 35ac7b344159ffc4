"""Which segment a group of deltas belongs to: resolved through a bounded cache, created on first sight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from stores.base import SegmentRef, SegmentStore
from stores.errors import BatchRejectedError
from stores.model import DeltaGroup, SegmentKey

log = structlog.get_logger(__name__)

CACHED_SEGMENTS = 100_000


class RefusedDeltas(NamedTuple):
    """Deltas that the store will never take, and the SQLSTATE that it gave."""

    group: DeltaGroup
    sqlstate: str


class Resolved(NamedTuple):
    """Deltas with their segments' ids; those of another kind than their segment; those that can have no segment."""

    deltas: list[tuple[int, DeltaGroup]]
    mismatched: list[DeltaGroup]
    refused: list[RefusedDeltas]


class SegmentResolver:
    """Finds and creates segments. What it remembers never changes, but for the names, which the store checks again."""

    def __init__(self, store: SegmentStore, *, cached_segments: int = CACHED_SEGMENTS) -> None:
        self._store = store
        self._known: OrderedDict[SegmentKey, SegmentRef] = OrderedDict()
        self._cached_segments = cached_segments

    async def resolve(self, groups: Sequence[DeltaGroup]) -> Resolved:
        """Raises that the store is unavailable, or is no store for us; calling it again is harmless."""
        refused = await self._learn(groups)
        resolved = Resolved([], [], [])
        renamed: dict[SegmentKey, DeltaGroup] = {}
        for group in groups:
            segment, cohort = self._known.get(group.segment), group.cohort
            if segment is None:
                resolved.refused.append(RefusedDeltas(group, refused[group.segment]))
                continue
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

    async def _learn(self, groups: Iterable[DeltaGroup]) -> dict[SegmentKey, str]:
        """Asks for what is not known yet. What the store refuses to create comes back with its SQLSTATE."""
        unknown = [group for group in groups if group.segment not in self._known]
        if not unknown:
            return {}
        try:
            self._known.update(await self._store.resolve(unknown))
        except BatchRejectedError:
            return await self._learn_each({group.segment: group for group in reversed(unknown)}.values())
        return {}

    async def _learn_each(self, groups: Iterable[DeltaGroup]) -> dict[SegmentKey, str]:
        refused: dict[SegmentKey, str] = {}
        for group in groups:
            try:
                self._known.update(await self._store.resolve([group]))
            except BatchRejectedError as exc:
                refused[group.segment] = exc.sqlstate
        return refused

    async def _rename(self, renamed: Mapping[SegmentKey, DeltaGroup]) -> None:
        """Tells the store of the newest name of each; the store knows whether a newer record named it before."""
        for key, group in renamed.items():
            segment, cohort = self._known[key], group.cohort
            try:
                await self._store.rename(segment.id, group)
            except BatchRejectedError as exc:  # a name decides nothing, so an odd one costs nobody their membership
                log.warning("segment_rename_refused", segment_id=segment.id, sqlstate=exc.sqlstate)
            self._known[key] = segment._replace(
                cohort_name=cohort.name or segment.cohort_name, cohort_url=cohort.url or segment.cohort_url
            )

    def _forget(self) -> None:
        while len(self._known) > self._cached_segments:
            self._known.popitem(last=False)
