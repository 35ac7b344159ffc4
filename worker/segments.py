"""Which segment a change belongs to: resolved through a bounded cache, created on first sight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import structlog

from stores.base import SegmentRef, SegmentStore
from stores.errors import BatchRejectedError
from stores.model import Clearing, DeltaGroup, SegmentChange, SegmentKey

log = structlog.get_logger(__name__)

CACHED_SEGMENTS = 100_000
_SEGMENT = attrgetter("segment")


class Refused(NamedTuple):
    """What the store will never take, and the SQLSTATE that it gave."""

    change: SegmentChange
    sqlstate: str


class Resolved(NamedTuple):
    """Changes with their segments' ids; those of another kind than their segment; those that can have no segment."""

    deltas: list[tuple[int, DeltaGroup]]
    clearings: list[tuple[int, Clearing]]
    mismatched: list[SegmentChange]
    refused: list[Refused]


class SegmentResolver:
    """Finds and creates segments. What it remembers never changes, but for the names, which the store checks again."""

    def __init__(self, store: SegmentStore, *, cached_segments: int = CACHED_SEGMENTS) -> None:
        self._store = store
        self._known: OrderedDict[SegmentKey, SegmentRef] = OrderedDict()
        self._cached_segments = cached_segments

    async def resolve(self, changes: Sequence[SegmentChange]) -> Resolved:
        """Raises that the store is unavailable, or is no store for us; calling it again is harmless."""
        refused: dict[SegmentKey, str] = {}
        segments = self._find(changes)
        if None in segments:
            unknown = [change for change, segment in zip(changes, segments, strict=True) if segment is None]
            refused = await self._learn(unknown)
            segments = self._find(changes)
        resolved = Resolved([], [], [], [])
        renamed: dict[SegmentKey, SegmentChange] = {}
        for change, segment in zip(changes, segments, strict=True):
            cohort = change.cohort
            if segment is None:
                resolved.refused.append(Refused(change, refused[change.segment]))
                continue
            if change.context_kind != segment.context_kind:
                resolved.mismatched.append(change)
            elif isinstance(change, DeltaGroup):
                resolved.deltas.append((segment.id, change))
            else:
                resolved.clearings.append((segment.id, change))
            if (cohort.name != segment.cohort_name and cohort.name) or (
                cohort.url != segment.cohort_url and cohort.url
            ):
                newest = renamed.setdefault(change.segment, change)
                if newest.version < change.version:
                    renamed[change.segment] = change
        await self._rename(renamed)
        self._forget()
        return resolved

    def _find(self, changes: Iterable[SegmentChange]) -> list[SegmentRef | None]:
        """What is known of the segment of each."""
        return list(map(self._known.get, map(_SEGMENT, changes)))

    async def _learn(self, unknown: Sequence[SegmentChange]) -> dict[SegmentKey, str]:
        """Asks for these. What the store refuses to create comes back with its SQLSTATE."""
        try:
            self._known.update(await self._store.resolve(unknown))
        except BatchRejectedError:
            return await self._learn_each({change.segment: change for change in reversed(unknown)}.values())
        return {}

    async def _learn_each(self, changes: Iterable[SegmentChange]) -> dict[SegmentKey, str]:
        refused: dict[SegmentKey, str] = {}
        for change in changes:
            try:
                self._known.update(await self._store.resolve([change]))
            except BatchRejectedError as exc:
                refused[change.segment] = exc.sqlstate
        return refused

    async def _rename(self, renamed: Mapping[SegmentKey, SegmentChange]) -> None:
        """Tells the store of the newest name of each; the store knows whether a newer record named it before."""
        for key, change in renamed.items():
            segment, cohort = self._known[key], change.cohort
            try:
                await self._store.rename(segment.id, change)
            except BatchRejectedError as exc:  # a name decides nothing, so an odd one costs nobody their membership
                log.warning("segment_rename_refused", segment_id=segment.id, sqlstate=exc.sqlstate)
            self._known[key] = segment._replace(
                cohort_name=cohort.name or segment.cohort_name, cohort_url=cohort.url or segment.cohort_url
            )

    def _forget(self) -> None:
        while len(self._known) > self._cached_segments:
            self._known.popitem(last=False)
