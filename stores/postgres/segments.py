"""Segments as the gateway reads and edits them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from stores.model import Position, SegmentKey
from stores.postgres.connection import Dsn, Pool
from stores.postgres.copy_rows import context_id
from stores.postgres.pooled import Pooled
from stores.postgres.queries import query
from stores.postgres.rejects import NotedReject

if TYPE_CHECKING:
    from asyncpg import Connection, Record


class SegmentView(msgspec.Struct, frozen=True, kw_only=True):
    """A segment as people see it over REST."""

    id: int
    environment: str
    key: str
    context_kind: str
    integration: str
    cohort_url: str | None
    name: str
    description: str
    tags: list[str]
    generation: int
    included_count: int
    created_at: datetime
    last_change_at: datetime | None
    edited_at: datetime | None
    edits: int


class SegmentFilter(NamedTuple):
    """Which segments are asked for: all of these that are not None."""

    query: str | None = None
    """Part of its name or key."""
    any_tag: list[str] | None = None
    any_member: list[str] | None = None


class Edit(NamedTuple):
    """What becomes of a segment's attributes; None leaves one as it is."""

    name: str | None = None
    description: str | None = None
    tags: list[str] | None = None


class SegmentStore(Pooled):
    """What a gateway asks of segments. Every method raises one of `stores.errors` and nothing else."""

    def __init__(self, dsn: Dsn) -> None:
        super().__init__(Pool(dsn, max_size=4))

    async def name_list(self, feed: str, cohort: str, name: str) -> None:
        """This list of the feed is called so from now on."""
        async with self._pool.session() as session:
            await session.execute(query("name_list"), feed, cohort, name)

    async def list_name(self, feed: str, cohort: str) -> str | None:
        """What it is called; None where it was never made."""
        async with self._pool.session() as session:
            name: str | None = await session.fetchval(query("find_list"), feed, cohort)
            return name

    async def tags(self, segments: Iterable[SegmentKey]) -> dict[SegmentKey, list[str]]:
        """The tags of those of these segments that exist."""
        asked = list(segments)
        environments, keys = [each.environment for each in asked], [each.key for each in asked]
        async with self._pool.session() as session:
            rows = await session.fetch(query("find_tags"), environments, keys)
        return {SegmentKey(row["environment"], row["key"]): row["tags"] for row in rows}

    async def page(
        self, environment: str, wanted: SegmentFilter, *, sort: str, limit: int, offset: int
    ) -> tuple[list[SegmentView], int]:
        """Some segments, in this order, and how many there are in all."""
        members = wanted.any_member
        hashes = None if members is None else [context_id(each) for each in members]
        asked = environment, wanted.query, wanted.any_tag, hashes, sort
        async with self._pool.session() as session:
            rows = await session.fetch(query("page_of_segments"), *asked, limit, offset)
            if not rows:  # behind the end, or nothing was wanted but the total
                first = await session.fetchrow(query("page_of_segments"), *asked, 1, 0)
                return [], first["total"] if first else 0
        views = [SegmentView(**{name: value for name, value in row.items() if name != "total"}) for row in rows]
        return views, rows[0]["total"]

    async def find(self, key: SegmentKey) -> SegmentView | None:
        """This segment, or None."""
        async with self._pool.session() as session:
            return await _find(session, key)

    async def is_member(self, segment: SegmentView, context_key: str) -> bool:
        """Whether this context is in."""
        async with self._pool.session() as session:
            row = await session.fetchrow(query("find_member"), segment.id, context_id(context_key))
            return bool(row and row["included"])

    async def rejects(self, segment: SegmentView, reason: str | None) -> list[NotedReject]:
        """What was rejected of it lately, the newest first; only for this reason, if one is given."""
        async with self._pool.session() as session:
            topics = dict(await session.fetch(query("topic_names")))
            rows = await session.fetch(query("list_rejects"), segment.id, reason)
        return [_noted(row, topics) for row in rows]

    async def edit(self, key: SegmentKey, change: Callable[[SegmentView], Edit], *, is_dry: bool) -> SegmentView | None:
        """Applies what `change` makes of the segment as it is then, unless it is a dry run. None: there is none."""
        async with self._pool.session() as session, session.transaction():
            await session.fetchrow(query("lock_segment"), *key)
            found = await _find(session, key)
            if found is None:
                return None
            edit = change(found)
            if edit == Edit():
                return found
            if is_dry:
                edited = {name: value for name, value in edit._asdict().items() if value is not None}
                return msgspec.structs.replace(found, **edited)
            await session.execute(query("edit_segment"), found.id, *edit)
            return await _find(session, key)


def _noted(row: Record, topics: dict[int, str]) -> NotedReject:
    position = Position.unpack(row["position"])
    return NotedReject(
        topics.get(position.topic_id, f"topic {position.topic_id}"),
        position.partition,
        position.offset,
        row["place"] if row["place"] >= 0 else None,
        row["reason"],
        row["detail"],
        row["member"],
        row["rejected_at"],
    )


async def _find(session: Connection, key: SegmentKey) -> SegmentView | None:
    row = await session.fetchrow(query("find_segment"), *key)
    return SegmentView(**row) if row else None
