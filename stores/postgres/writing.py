"""The write path: a batch of deltas becomes memberships in one transaction, segments come into being on first sight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import asyncpg

from stores.base import Applied, SegmentRef
from stores.errors import StoreRefusedError
from stores.model import TOPIC_ID_BITS, DeltaGroup, SegmentKey
from stores.postgres.connection import WRITER_SESSION, Pool
from stores.postgres.copy_rows import COLUMNS, copy_rows
from stores.postgres.migrating import require_schema
from stores.postgres.queries import query

if TYPE_CHECKING:
    from asyncpg import Connection

_COPY_CHUNK_BYTES = 1 << 18
_NO_TOPIC_ID_LEFT = (
    f"the store has versioned records of {(1 << TOPIC_ID_BITS) - 1} topics, and no id is left for another: "
    "share the topics out among several stores"
)


class StoreFacts(NamedTuple):
    """How many segments there are, and how long the oldest open transaction has held back the change feed."""

    segments: int
    horizon_age_s: float


class PostgresStore:
    """`SegmentStore` on PostgreSQL. Its promises are those of the protocol; this is how they are kept.

    A batch is copied into a staging table and merged from there in the order of the primary key. What flipped is
    counted from the rows that carry this transaction's id, so counts are exact whatever the batch held.
    """

    def __init__(self, dsn: str, *, pool_max_size: int) -> None:
        self._pool = Pool(dsn, max_size=pool_max_size, session=WRITER_SESSION, prepare=_create_stage)

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pool.__aexit__(*exc)

    async def require_schema(self) -> None:
        """Raises `StoreRefusedError` unless the server is fit and its schema complete."""
        async with self._pool.session() as session:
            await require_schema(session)

    async def facts(self) -> StoreFacts:
        """What dashboards show of the store as a whole; also the proof that it answers."""
        async with self._pool.session() as session:
            return StoreFacts(
                segments=await session.fetchval(query("count_segments")),
                horizon_age_s=await session.fetchval(query("horizon_age_s")),
            )

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

    async def resolve(self, groups: Sequence[DeltaGroup]) -> Mapping[SegmentKey, SegmentRef]:
        """See `SegmentStore.resolve`."""
        first_groups: dict[SegmentKey, DeltaGroup] = {}
        for group in groups:
            first_groups.setdefault(group.segment, group)
        async with self._pool.session() as session:
            found = await _find_segments(session, first_groups)
            missing = [group for key, group in first_groups.items() if key not in found]
            if missing:
                await _create_segments(session, missing)
                found |= await _find_segments(session, {group.segment: group for group in missing})
            return found

    async def rename(self, segment_id: int, group: DeltaGroup) -> None:
        """See `SegmentStore.rename`."""
        async with self._pool.session() as session:
            cohort, version = group.cohort, group.version
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


async def _create_segments(session: Connection, groups: Sequence[DeltaGroup]) -> None:
    async with session.transaction():
        await session.execute(query("create_environments"), [group.segment.environment for group in groups])
        await session.execute(
            query("create_segments"),
            [group.segment.environment for group in groups],
            [group.segment.key for group in groups],
            [group.context_kind for group in groups],
            [group.cohort.integration for group in groups],
            [group.cohort.cohort_id for group in groups],
            [group.cohort.name for group in groups],
            [group.cohort.url for group in groups],
            [group.version.event_time_us for group in groups],
            [group.version.position for group in groups],
        )


async def _write(
    session: Connection, deltas: Sequence[tuple[int, DeltaGroup]], rows: bytes, merge_statement: str
) -> Applied:
    segment_ids = list({segment_id for segment_id, _ in deltas})
    async with session.transaction():
        staged = await session.copy_to_table("stage", source=_chunks(rows), columns=COLUMNS, format="binary")
        if await session.fetchval(query("any_cleared"), segment_ids):
            await session.execute(query("cover_cleared"), segment_ids)
        stored = await session.execute(merge_statement)
        await session.execute(query("count_flips"))
        if _rows_of(stored) == _rows_of(staged):
            return Applied(stale={})
        return Applied(stale=dict(await session.fetch(query("count_stale"))))


def _rows_of(status: str) -> int:
    """The number at the end of a command's status, as in `MERGE 20000`."""
    return int(status.rpartition(" ")[2])


async def _chunks(rows: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(rows)
    for start in range(0, len(view), _COPY_CHUNK_BYTES):
        yield view[start : start + _COPY_CHUNK_BYTES]
