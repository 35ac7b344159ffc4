"""The writer: puts lanes into the store, waits while the store can't, and finds the delta that the store refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from stores.base import Applied, SegmentStore
from stores.errors import BatchRejectedError
from stores.model import Clearing, DeltaGroup
from worker.backoff import until_available
from worker.instruments import Instruments
from worker.lanes import Lane, split_into_lanes
from worker.segments import Refused

WRITERS = 2
"""Two writes side by side use two cores; four were measured to add nothing (design.md 4)."""


class Written(NamedTuple):
    """What became of a batch: all is durable but for the refused; `stale` counts by segment what changed nothing."""

    stale: dict[int, int]
    refused: list[Refused]


class BatchWriter:
    """Makes deltas durable. Returns when every one of them is stored or known to be refused, however long it takes."""

    def __init__(self, store: SegmentStore, *, instruments: Instruments) -> None:
        self._store = store
        self._metrics, self._health = instruments
        self._writers = asyncio.Semaphore(WRITERS)

    async def write(self, deltas: Sequence[tuple[int, DeltaGroup]], *, in_two: bool) -> Written:
        """Writes each context kind in a writer task of its own, two at a time; the largest in two tasks, if asked."""
        written = Written({}, [])
        async with asyncio.TaskGroup() as tasks:
            for lane in split_into_lanes(deltas, in_two=in_two):
                tasks.create_task(self._write_lane(lane, written), name=f"writer-{lane.context_kind}")
        return written

    async def clear(self, clearings: Sequence[tuple[int, Clearing]]) -> list[Refused]:
        """To be called when their members are written. Returns those that the store refuses."""
        if not clearings:
            return []
        try:
            await until_available(self._health, "postgres", lambda: self._store.clear(clearings))
        except BatchRejectedError as exc:
            if len(clearings) == 1:
                return [Refused(clearings[0][1], exc.sqlstate)]
            return [refused for each in clearings for refused in await self.clear([each])]
        return []

    async def _write_lane(self, lane: Lane, written: Written) -> None:
        async with self._writers:
            await self._write_or_split(lane.deltas, written)

    async def _write_or_split(self, deltas: list[tuple[int, DeltaGroup]], written: Written) -> None:
        try:
            applied = await until_available(self._health, "postgres", lambda: self._apply(deltas))
        except BatchRejectedError as exc:
            halves = _halves(deltas)
            if not halves:
                written.refused.append(Refused(deltas[0][1], exc.sqlstate))
            for half in halves:
                await self._write_or_split(half, written)
        else:
            for segment_id, stale in applied.stale.items():
                written.stale[segment_id] = written.stale.get(segment_id, 0) + stale

    async def _apply(self, deltas: list[tuple[int, DeltaGroup]]) -> Applied:
        with self._metrics.store_write():
            return await self._store.apply(deltas)


def _halves(deltas: list[tuple[int, DeltaGroup]]) -> list[list[tuple[int, DeltaGroup]]]:
    """Two smaller batches, or none for a single delta."""
    if len(deltas) > 1:
        middle = len(deltas) // 2
        return [deltas[:middle], deltas[middle:]]
    segment_id, group = deltas[0]
    middle = len(group) // 2
    if not middle:
        return []
    return [[(segment_id, group.part(0, middle))], [(segment_id, group.part(middle, len(group)))]]
