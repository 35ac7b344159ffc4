"""An environment from another cell's store into ours, while both are written to.

Memberships and clearings go by the ordinary write path, under the versions that they have: what our own workers have
read meanwhile stays where it is newer, and copying once more changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from stores.errors import StoreRefusedError
from stores.model import Clearing, Cohort, DeltaGroup, Page, Position, SegmentKey, Version
from stores.postgres.connection import WRITER_SESSION, connected
from stores.postgres.erasing import Erasures
from stores.postgres.migrating import require_schema
from stores.postgres.queries import query
from stores.postgres.writing import PostgresStore

if TYPE_CHECKING:
    from asyncpg import Connection, Record

BATCH_ROWS = 10_000
_EDITS = (
    "name",
    "name_edited_at",
    "description",
    "description_edited_at",
    "tags",
    "tags_edited_at",
    "edits",
    "generation",
    "other_generation",
    "created_at",
)


class EnvironmentCopy:
    """Copies one environment. Every method raises one of `stores.errors` and nothing else, and may be repeated."""

    def __init__(self, theirs: Connection, ours: Connection, store: PostgresStore, topics: dict[int, str]) -> None:
        self._theirs = theirs
        self._ours = ours
        self._store = store
        self._topics = topics
        self._topic_ids: dict[int, int] = {}

    async def erasures(self) -> None:
        """Who was erased there stays out here too, also where a record has brought them in already."""
        erased = await self._theirs.fetch(query("read_erasures"))
        if not erased:
            return
        async with self._ours.transaction():
            await self._ours.execute(
                query("take_salts"), [salt for (salt,) in await self._theirs.fetch(query("read_salts"))]
            )
            await self._ours.executemany(query("take_erasure"), erased)
        erasures = Erasures(self._ours)
        await erasures.seen_by_all_writers()
        for (context,) in await self._ours.fetch(query("list_erased_members")):
            await erasures.put_out_context(context)
            await self._ours.execute(query("delete_everywhere"), context)

    async def segments(self, environment: str) -> AsyncIterator[tuple[str, int]]:
        """Copies one after the other, and tells of each its key and how many memberships it has, leavers too."""
        for row in await self._theirs.fetch(query("read_segments"), environment):
            yield row["key"], await self._segment(SegmentKey(environment, row["key"]), row)

    async def _segment(self, key: SegmentKey, row: Record) -> int:
        cohort = Cohort(row["integration"], row["cohort_id"], row["cohort_name"], row["cohort_url"])
        version = await self._version(row["cohort_event_time"], row["cohort_position"])
        nobody = DeltaGroup(
            key, cohort, row["context_kind"], included=True, version=version, context_keys=(), places=()
        )
        segment = (await self._store.resolve([nobody]))[key]
        if segment.context_kind != nobody.context_kind:
            raise StoreRefusedError(
                f"segment {key.key} is of kind {nobody.context_kind!r} there, and {segment.context_kind!r} here"
            )
        await self._store.rename(segment.id, nobody)
        await self._ours.execute(query("take_edits"), segment.id, *(row[name] for name in _EDITS))
        clearings = [
            (segment.id, await self._clearing(nobody, each))
            for each in await self._theirs.fetch(query("read_clearings"), row["id"])
        ]
        if clearings:
            await self._store.clear(clearings)
        return await self._memberships(segment.id, nobody, row["id"])

    async def _clearing(self, of: DeltaGroup, row: Record) -> Clearing:
        version = await self._version(row["event_time"], row["position"])
        # What belongs to no session is one of its own, named after its record.
        is_alone = row["session"] == f"#{row['position']}"
        page = None if is_alone else Page(row["session"], row["page"], row["pages"] or None)
        return Clearing(of.segment, of.cohort, of.context_kind, version, page)

    async def _memberships(self, segment_id: int, of: DeltaGroup, their_id: int) -> int:
        count = 0
        async with self._theirs.transaction(readonly=True):
            cursor = await self._theirs.cursor(query("read_memberships"), their_id)
            while rows := await cursor.fetch(BATCH_ROWS):
                alike: dict[tuple[bool, int, int], list[str]] = defaultdict(list)
                for context_key, *decided in rows:
                    alike[tuple(decided)].append(context_key)
                await self._store.apply(
                    [
                        (
                            segment_id,
                            msgspec.structs.replace(
                                of,
                                included=included,
                                version=await self._version(event_time, position),
                                context_keys=keys,
                                places=range(len(keys)),
                            ),
                        )
                        for (included, event_time, position), keys in alike.items()
                    ]
                )
                count += len(rows)
        return count

    async def _version(self, event_time_us: int, position: int) -> Version:
        """The same, where topics have other ids."""
        there = Position.unpack(position)
        if there.topic_id not in self._topic_ids:
            self._topic_ids[there.topic_id] = await self._store.topic_id(self._topics[there.topic_id])
        return Version(event_time_us, there._replace(topic_id=self._topic_ids[there.topic_id]).pack())


@asynccontextmanager
async def environment_copy(*, theirs: str, ours: str) -> AsyncIterator[EnvironmentCopy]:
    """From their store into ours. Raises `StoreRefusedError` unless both are as this code knows them."""
    async with (
        connected(theirs) as reading,
        connected(ours, **WRITER_SESSION) as writing,
        PostgresStore(ours, pool_max_size=2) as store,
    ):
        for session in (reading, writing):
            await require_schema(session)
        yield EnvironmentCopy(reading, writing, store, dict(await reading.fetch(query("topic_names"))))
