"""The write path: a batch of deltas becomes memberships in one transaction, segments come into being on first sight."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import asyncpg

from stores.base import Applied, SegmentRef
from stores.errors import StoreRefusedError
from stores.model import TOPIC_ID_BITS, Clearing, DeltaGroup, SegmentChange, SegmentKey
from stores.postgres.connection import WRITER_SESSION, Dsn, Pool
from stores.postgres.copy_rows import COLUMNS, copy_rows
from stores.postgres.pooled import Pooled
from stores.postgres.queries import query

if TYPE_CHECKING:
    from asyncpg import Connection

SWEEP_ROWS = 10_000
"""So many rows at a time, so that writers never wait long for a sweep."""
_COPY_CHUNK_BYTES = 1 << 18
_NO_TOPIC_ID_LEFT = (
    f"the store has versioned records of {(1 << TOPIC_ID_BITS) - 1} topics, and no id is left for another: "
    "share the topics out among several stores"
)


class StoreFacts(NamedTuple):
    """What there is to know of the store as a whole."""

    segments: int
    horizon_age_s: float
    """For so long the oldest open transaction has held back sweeps and the change feed."""
    open_sessions: int
    """Replace sessions that miss pages, and below for how long the oldest of them has waited."""
    oldest_open_session_s: float


class Sweep(NamedTuple):
    """A segment's clearing, and up to which context its sweep has come."""

    segment_id: int
    clearing: str
    context_hash: UUID = UUID(int=0)


class PostgresStore(Pooled):
    """`SegmentStore` on PostgreSQL. Its promises are those of the protocol; this is how they are kept.

    A batch is copied into a staging table and merged from there in the order of the primary key. What flipped is
    counted from the rows that carry this transaction's id, so counts are exact whatever the batch held.
    """

    def __init__(self, dsn: Dsn, *, pool_max_size: int) -> None:
        super().__init__(Pool(dsn, max_size=pool_max_size, session=WRITER_SESSION, prepare=_create_stage))

    async def facts(self) -> StoreFacts:
        """What dashboards show of the store as a whole; also the proof that it answers."""
        async with self._pool.session() as session:
            sessions = await session.fetchrow(query("open_session_facts"))
            return StoreFacts(
                segments=await session.fetchval(query("count_segments")),
                horizon_age_s=await session.fetchval(query("horizon_age_s")),
                open_sessions=sessions["sessions"],
                oldest_open_session_s=sessions["oldest_s"],
            )

    async def note_ingestion(self, stored_up_to: Sequence[tuple[str, int, datetime | None]]) -> None:
        """Of each topic's partitions: all that had arrived by then is committed. None: the partition is there."""
        if stored_up_to:
            async with self._pool.session() as session:
                await session.execute(query("note_ingestion"), *map(list, zip(*stored_up_to, strict=True)))

    async def topic_id(self, topic: str) -> int:
        """See `SegmentStore.topic_id`."""
        async with self._pool.session() as session, session.transaction():
            known = await _topic_ids(session)
            if topic not in known:
                await session.execute(query("lock_topics"))
                try:
                    await session.execute(query("create_topic"), topic)
                except asyncpg.CheckViolationError:
                    raise StoreRefusedError(_NO_TOPIC_ID_LEFT) from None
                known = await _topic_ids(session)
            return known[topic]

    async def resolve(self, changes: Sequence[SegmentChange]) -> Mapping[SegmentKey, SegmentRef]:
        """See `SegmentStore.resolve`."""
        first_changes: dict[SegmentKey, SegmentChange] = {}
        for change in changes:
            first_changes.setdefault(change.segment, change)
        async with self._pool.session() as session:
            found = await _find_segments(session, first_changes)
            missing = [change for key, change in first_changes.items() if key not in found]
            if missing:
                await _create_segments(session, missing)
                found |= await _find_segments(session, {change.segment: change for change in missing})
            return found

    async def rename(self, segment_id: int, change: SegmentChange) -> None:
        """See `SegmentStore.rename`."""
        async with self._pool.session() as session:
            cohort, version = change.cohort, change.version
            await session.execute(
                query("rename_segment"), segment_id, cohort.name, cohort.url, version.event_time_us, version.position
            )

    async def apply(self, deltas: Sequence[tuple[int, DeltaGroup]]) -> Applied:
        """See `SegmentStore.apply`."""
        rows = copy_rows(deltas)
        async with self._pool.session() as session:
            try:
                return await _write(session, deltas, rows, query("merge_stage"))
            except asyncpg.UniqueViolationError:
                # Two sessions that insert the same new keys make MERGE raise this; ON CONFLICT waits instead.
                return await _write(session, deltas, rows, query("upsert_stage"))

    async def clear(self, clearings: Sequence[tuple[int, Clearing]]) -> None:
        """See `SegmentStore.clear`. What is covered is out at once; a sweep follows for counts and change feed."""
        rows = sorted(map(_clearing_row, clearings))
        segment_ids = sorted({row[0] for row in rows})
        async with self._pool.session() as session, session.transaction():
            await session.execute(query("lock_segments"), segment_ids)
            await session.executemany(query("note_clearing"), rows)
            await session.execute(query("settle_clearings"), segment_ids)
            await session.execute(query("forget_clearings"), segment_ids)

    async def sweeps(self) -> list[Sweep]:
        """The clearings whose rows are to be turned into tombstones, since no running transaction can miss them."""
        async with self._pool.session() as session:
            await session.execute(query("mark_sweeps"))
            return [Sweep(*row) for row in await session.fetch(query("list_sweeps"))]

    async def forget_old_rejects(self) -> None:
        """Of members that were rejected nothing is kept for more than a month. A thousand at a time."""
        async with self._pool.session() as session:
            await session.execute(query("forget_old_rejects"))

    async def unswept(self) -> int:
        """How many clearings are not swept yet, also those whose sweep must not begin yet."""
        async with self._pool.session() as session:
            count: int = await session.fetchval(query("count_unswept"))
            return count

    async def sweep(self, sweep: Sweep) -> Sweep | None:
        """Goes on with one for at most `SWEEP_ROWS` rows; None when it is done, or another worker is at it."""
        segment_id, clearing, after = sweep
        async with self._pool.session() as session, session.transaction():
            if not await session.fetchval(query("lock_sweep"), segment_id):
                return None
            until = await session.fetchval(query("sweep_until"), segment_id, after, SWEEP_ROWS - 1)
            await session.execute(query("sweep"), segment_id, after, until)
            await session.execute(query("count_flips"))
            if until is None:
                await session.execute(query("finish_sweep"), segment_id, clearing)
        return None if until is None else sweep._replace(context_hash=until)


async def _create_stage(session: Connection) -> None:
    await session.execute(query("create_stage"))


async def _topic_ids(session: Connection) -> dict[str, int]:
    return dict(await session.fetch(query("find_topics")))


async def _find_segments(session: Connection, keys: Mapping[SegmentKey, object]) -> dict[SegmentKey, SegmentRef]:
    rows = await session.fetch(query("find_segments"), [key.environment for key in keys], [key.key for key in keys])
    return {
        SegmentKey(row["environment"], row["key"]): SegmentRef(
            row["id"], row["context_kind"], row["cohort_name"], row["cohort_url"]
        )
        for row in rows
    }


async def _create_segments(session: Connection, changes: Sequence[SegmentChange]) -> None:
    async with session.transaction():
        await session.execute(query("create_environments"), [change.segment.environment for change in changes])
        await session.execute(
            query("create_segments"),
            [change.segment.environment for change in changes],
            [change.segment.key for change in changes],
            [change.context_kind for change in changes],
            [change.cohort.integration for change in changes],
            [change.cohort.cohort_id for change in changes],
            [change.cohort.name for change in changes],
            [change.cohort.url for change in changes],
            [change.version.event_time_us for change in changes],
            [change.version.position for change in changes],
        )


def _clearing_row(each: tuple[int, Clearing]) -> tuple[int, str, int, int, int, int]:
    """Segment, session, pages, page and version. What belongs to no session is one of its own."""
    segment_id, clearing = each
    version, page = clearing.version, clearing.page
    if page is None or page.session is None:
        return segment_id, f"#{version.position}", 1, 1, version.event_time_us, version.position
    return segment_id, page.session, page.pages or 0, page.number, version.event_time_us, version.position


async def _write(
    session: Connection, deltas: Sequence[tuple[int, DeltaGroup]], rows: bytes, merge_statement: str
) -> Applied:
    segment_ids = list({segment_id for segment_id, _ in deltas})
    async with session.transaction():
        staged = await session.copy_to_table("stage", source=_chunks(rows), columns=COLUMNS, format="binary")
        exceptions = await session.fetchrow(query("find_exceptions"), segment_ids)
        stale: Counter[int] = Counter()
        if exceptions["erased"]:
            stale.update(dict(await session.fetch(query("drop_erased"))))
        if exceptions["cleared"]:
            await session.execute(query("cover_cleared"), segment_ids)
        stored = await session.execute(merge_statement)
        await session.execute(query("count_flips"))
        if _rows_of(stored) + stale.total() < _rows_of(staged):
            stale.update(dict(await session.fetch(query("count_stale"))))
        return Applied(stale)


def _rows_of(status: str) -> int:
    """The number at the end of a command's status, as in `MERGE 20000`."""
    return int(status.rpartition(" ")[2])


async def _chunks(rows: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(rows)
    for start in range(0, len(view), _COPY_CHUNK_BYTES):
        yield view[start : start + _COPY_CHUNK_BYTES]
