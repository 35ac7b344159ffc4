"""What the commands show of the store: segments, members, and why one is in or out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from stores.model import Membership, OpenSession, Position, Segment, Version
from stores.postgres.connection import connected
from stores.postgres.copy_rows import context_id
from stores.postgres.migrating import require_schema
from stores.postgres.queries import query

if TYPE_CHECKING:
    from asyncpg import Connection, Record

_CURSOR_ROWS = 5_000


class PostgresReader:
    """Reads what is committed. Every method raises one of `stores.errors` and nothing else."""

    def __init__(self, session: Connection) -> None:
        self._session = session

    async def segments(self, environment: str | None = None) -> list[Segment]:
        """All segments, or those of one environment, in order of environment and key."""
        return [Segment(**row) for row in await self._session.fetch(query("list_segments"), environment, None)]

    async def segments_named(self, key: str, environment: str | None = None) -> list[Segment]:
        """The segments of this key: one for each environment that has it."""
        return [Segment(**row) for row in await self._session.fetch(query("list_segments"), environment, key)]

    async def open_sessions(self, environment: str | None = None) -> list[OpenSession]:
        """Replace sessions that miss pages, of one environment or of all."""
        return [OpenSession(**row) for row in await self._session.fetch(query("list_open_sessions"), environment)]

    async def count_members(self, segment: Segment, *, with_removed: bool = False) -> int:
        """How many are in, or were ever named."""
        count: int = await self._session.fetchval(query("count_members"), segment.id, with_removed)
        return count

    async def members(self, segment: Segment, *, with_removed: bool = False) -> AsyncIterator[Membership]:
        """Streams the members through a cursor, so that memory stays flat whatever the segment's size."""
        topics = await self._topic_names()
        async with self._session.transaction(readonly=True):
            cursor = self._session.cursor(query("list_members"), segment.id, with_removed, prefetch=_CURSOR_ROWS)
            async for row in cursor:
                yield _membership(segment, row, topics)

    async def member(self, segment: Segment, context_key: str) -> Membership | None:
        """The membership of one context, also of one that left; None for one that was never named."""
        row = await self._session.fetchrow(query("find_member"), segment.id, context_id(context_key))
        return _membership(segment, row, await self._topic_names()) if row else None

    async def _topic_names(self) -> dict[int, str]:
        return dict(await self._session.fetch(query("topic_names")))


@asynccontextmanager
async def postgres_reader(dsn: str) -> AsyncIterator[PostgresReader]:
    """A reader on a session of its own, which is refused while the schema is not complete."""
    async with connected(dsn) as session:
        await require_schema(session)
        yield PostgresReader(session)


def _membership(segment: Segment, row: Record, topics: dict[int, str]) -> Membership:
    position = Position.unpack(row["position"])
    return Membership(
        environment=segment.environment,
        segment=segment.key,
        context_kind=segment.context_kind,
        context_key=row["context_key"],
        included=row["included"],
        version=Version(row["event_time"], row["position"]),
        topic=topics.get(position.topic_id, f"topic {position.topic_id}"),
        partition=position.partition,
        offset=position.offset,
        integration=segment.integration,
    )
