"""An environment from another cell's store into ours, while both are written to.

Memberships and clearings go by the ordinary write path, under the versions that they have: what our own workers have
read meanwhile stays where it is newer, and copying once more changes nothing. What people have set counts by when they
set it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import msgspec

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
    "created_at",
)
_GENERATIONS = ("generation", "other_generation", "generation_set_at")


class CopiedSegment(NamedTuple):
    """A segment that was copied, or was not, since it is of another kind there."""

    key: str
    memberships: int
    """Those of leavers too."""
    kind: str
    their_kind: str | None = None
    """Only where it differs."""


class EnvironmentCopy:
    """Copies one environment. Every method raises one of `stores.errors` and nothing else, and may be repeated."""

    def __init__(
        self, theirs: Connection, ours: Connection, store: PostgresStore, environment: str, projections: Sequence[str]
    ) -> None:
        self._theirs = theirs
        self._ours = ours
        self._store = store
        self._environment = environment
        self._projections = list(projections)
        self._topics: dict[int, str] = {}
        self._topic_ids: dict[int, int] = {}

    async def environments(self) -> list[str]:
        """Those that they have something of."""
        return [key for (key,) in await self._theirs.fetch(query("list_environments"))]

    async def begin(self) -> None:
        """From now on, until `end`, rows of this environment are missing here: no projector begins a target with it."""
        await self._ours.execute(query("create_environments"), [self._environment])
        await self._ours.execute(query("begin_copy"), self._environment)

    async def end(self) -> None:
        """All of it is here."""
        await self._ours.execute(query("end_copy"), self._environment)

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
        async for context in self._erased_members():
            async with self._ours.transaction():
                was_in = await erasures.put_out_context(context)
                await self._ours.execute(query("delete_everywhere"), context)
                if was_in:  # with the rows goes what would tell projectors, so that they have to look themselves
                    await self._ours.execute(query("sweep_targets"))

    async def _erased_members(self) -> AsyncIterator[UUID]:
        after: tuple[int, UUID] = 0, UUID(int=0)
        while page := await self._ours.fetchrow(query("list_erased_members"), *after, BATCH_ROWS):
            after = page["segment_id"], page["context_hash"]
            for context in page["erased"]:
                yield context

    async def segments(self) -> AsyncGenerator[CopiedSegment, None]:
        """Copies one after the other, and tells of each what became of it."""
        for row in await self._theirs.fetch(query("read_segments"), self._environment):
            yield await self._segment(SegmentKey(self._environment, row["key"]), row)

    async def _segment(self, key: SegmentKey, row: Record) -> CopiedSegment:
        cohort = Cohort(row["integration"], row["cohort_id"], row["cohort_name"], row["cohort_url"])
        version = await self._version(row["cohort_event_time"], row["cohort_position"])
        nobody = DeltaGroup(
            key, cohort, row["context_kind"], included=True, version=version, context_keys=(), places=()
        )
        segment = (await self._store.resolve([nobody]))[key]
        if segment.context_kind != nobody.context_kind:
            # One that a record has made here first. That must not keep the other segments from being copied.
            return CopiedSegment(key.key, 0, segment.context_kind, nobody.context_kind)
        await self._store.rename(segment.id, nobody)
        await self._ours.execute(query("take_edits"), segment.id, *(row[name] for name in _EDITS))
        await self._take_generations(segment.id, row)
        clearings = [
            (segment.id, await self._clearing(nobody, each))
            for each in await self._theirs.fetch(query("read_clearings"), row["id"])
        ]
        if clearings:
            await self._store.clear(clearings)
        return CopiedSegment(key.key, await self._memberships(segment.id, nobody, row["id"]), segment.context_kind)

    async def _take_generations(self, segment_id: int, row: Record) -> None:
        async with self._ours.transaction():
            taken = await self._ours.execute(
                query("take_generations"), segment_id, *(row[name] for name in _GENERATIONS)
            )
            if taken != "UPDATE 0":
                await self._ours.execute(query("apply_again"), self._projections)

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
            if there.topic_id not in self._topics:  # they may have met it since we began
                self._topics = dict(await self._theirs.fetch(query("topic_names")))
            self._topic_ids[there.topic_id] = await self._store.topic_id(self._topics[there.topic_id])
        return Version(event_time_us, there._replace(topic_id=self._topic_ids[there.topic_id]).pack())


@asynccontextmanager
async def environment_copy(
    environment: str, *, theirs: str, ours: str, projections: Sequence[str] = ()
) -> AsyncIterator[EnvironmentCopy]:
    """From their store into ours, where these projections are filled with it.

    Raises `StoreRefusedError` unless both are as this code knows them.
    """
    async with (
        connected(theirs) as reading,
        connected(ours, **WRITER_SESSION) as writing,
        PostgresStore(ours, pool_max_size=2) as store,
    ):
        for session in (reading, writing):
            await require_schema(session)
        yield EnvironmentCopy(reading, writing, store, environment, projections)
