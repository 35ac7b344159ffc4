"""The change feed: pages of committed flips behind a cursor. And who may apply it: one leader for each projection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import asyncpg

from stores.errors import StoreError
from stores.postgres.connection import Dsn, Pool
from stores.postgres.pooled import Pooled
from stores.postgres.queries import query
from stores.target import Change

if TYPE_CHECKING:
    from asyncpg import Connection

PAGE_ROWS = 5_000
LEASE_S = 5.0
"""The server ends a leader's session that is silent for so long, and with it the leadership: a frozen process can't
hold it, although its connection stays open."""
PING_S = 1.0
TRUSTED_S = 3.0
"""So long after its last ping a leader may still believe that it is one."""


StoredUpTo = Mapping[tuple[str, int], datetime | None]


class LeadLostError(StoreError):
    """Somebody else leads, or may do so by now."""


class StillLedError(StoreError):
    """A projector keeps this projection's target in step."""


class GenerationKeptError(StoreError):
    """A generation is still kept from before, so there is no room for another one beside it."""


class Cursor(NamedTuple):
    """A place in the change feed: everything up to it is applied."""

    xid: str = "0"
    segment_id: int = 0
    context_hash: UUID = UUID(int=0)


class FeedPosition(NamedTuple):
    """Where the feed ends at one moment."""

    horizon: int
    """Readers see every transaction before this one."""
    next_xid: int
    """Whatever is committed by now is in transactions before this one."""
    at: datetime
    stored_up_to: StoredUpTo
    """By topic and partition, up to when all that had arrived is committed by now."""
    unswept: frozenset[int]
    """Segments that were cleared by now, and whose sweeps have not yet put into the feed whom that puts out."""


class Place(NamedTuple):
    """One context in one segment, by what targets know of it: the first 16 bytes of the hash of its key."""

    segment: str
    context_hash: UUID


class Expected(NamedTuple):
    """What should stand at a place."""

    included: bool
    generations: frozenset[int]
    """In all of these: the one that SDKs should ask for, and one that is kept beside it."""
    is_known: bool
    """Whether the context was ever named for the segment."""


class ProjectionState(NamedTuple):
    """What the projector of a target told last."""

    name: str
    caught_up_at: datetime | None
    """When the end of the change feed was last reached."""
    synchronized_on: datetime | None
    stopped: str | None
    told_at: datetime
    at: datetime
    """The time now, by the same clock."""


class Page(NamedTuple):
    """Some changes of one environment, and the cursor behind them."""

    changes: list[Change]
    cursor: Cursor
    is_last: bool
    """Whether it reaches the end of the feed."""


class Lead:
    """The leadership of one projection, which may be lost at any time. All that is written names its epoch."""

    def __init__(self, feed: ChangeFeed, name: str, row: asyncpg.Record) -> None:
        self._feed = feed
        self.name = name
        self.epoch: int = row["epoch"]
        self.marker = str(row["marker"])
        self.cursor = Cursor(row["xid"], row["cursor_segment_id"], row["cursor_context_hash"])
        self.is_swept: bool = row["is_swept"]
        """Whether nothing stands in the target that was there before it was begun anew, and belongs to nobody."""
        self.synchronized_on: datetime | None = row["synchronized_on"]
        """What the target was told last."""
        self._held_at = time.monotonic()

    def require(self) -> None:
        """Raises `LeadLostError` where it may be over. Cheap; to be asked before every write to the target."""
        if time.monotonic() - self._held_at > TRUSTED_S:
            raise LeadLostError

    async def save(self, cursor: Cursor) -> None:
        """Everything up to there is in the target. Raises `LeadLostError`."""
        await self._update("save_cursor", *cursor)
        self.cursor = cursor

    async def tell(
        self, applied_before: int, caught_up_at: datetime | None, synchronized_on: datetime | None, stopped: str | None
    ) -> None:
        """What `status` shows. Raises `LeadLostError`."""
        await self._update("tell_projection", str(applied_before), caught_up_at, synchronized_on, stopped)
        self.synchronized_on = synchronized_on or self.synchronized_on

    async def swept(self) -> None:
        """What belongs to nobody is out of the target. Raises `LeadLostError`."""
        await self._update("finish_target_sweep")
        self.is_swept = True

    async def restart(self) -> None:
        """The target is empty, or not ours: from nothing, under a new marker. Raises `LeadLostError`."""
        async with self._feed.session() as session:
            marker = await session.fetchval(query("restart_projection"), self.name, self.epoch)
        if marker is None:
            raise LeadLostError
        self.marker, self.cursor, self.is_swept, self.synchronized_on = str(marker), Cursor(), False, None

    async def keep(self, session: Connection) -> None:
        """Pings for as long as the session lives."""
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            while True:
                asked_at = time.monotonic()
                await session.execute("SELECT")
                self._held_at = asked_at
                await asyncio.sleep(PING_S)

    async def _update(self, statement: str, *values: object) -> None:
        async with self._feed.session() as session:
            status = await session.execute(query(statement), self.name, self.epoch, *values)
        if status == "UPDATE 0":
            raise LeadLostError


class ChangeFeed(Pooled):
    """Reads what is committed, in an order that one triple remembers: no gap, no double, whatever the commit order."""

    def __init__(self, dsn: Dsn) -> None:
        super().__init__(Pool(dsn, max_size=4))

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A session of the pool. Errors come out as `stores.errors`."""
        async with self._pool.session() as session:
            yield session

    @asynccontextmanager
    async def leading(self, name: str) -> AsyncIterator[Lead | None]:
        """The leadership of this projection; None where somebody else has it."""
        lease_ms = round(LEASE_S * 1_000)
        async with self._pool.apart(idle_session_timeout=str(lease_ms)) as session:
            if not await session.fetchval(query("try_to_lead"), name):
                yield None
                return
            async with self.session() as other:
                lead = Lead(self, name, await other.fetchrow(query("begin_to_lead"), name))
            keeping = asyncio.create_task(lead.keep(session), name=f"lead-{name}")
            try:
                yield lead
            finally:
                keeping.cancel()
                # Not `suppress(CancelledError)`: a stop that comes just now is for us, and must not be lost.
                await asyncio.gather(keeping, return_exceptions=True)

    async def next_xid(self) -> int:
        """Whatever is committed by now is in transactions before this one."""
        async with self.session() as session:
            return int(await session.fetchval(query("next_xid")))

    async def position(self, environment: str) -> FeedPosition:
        """Where the feed ends now, and what was stored when, with the clearings of this environment."""
        async with self.session() as session:
            # What was told of storing comes first: a clearing among it is then either listed or swept, and the sweeps'
            # transactions are before `next_xid`.
            stored = await session.fetch(query("list_ingestion"))
            unswept = await session.fetch(query("list_unswept"), environment)
            row = await session.fetchrow(query("feed_position"))
        return FeedPosition(
            int(row["horizon"]),
            int(row["next_xid"]),
            row["at"],
            {(each["topic"], each["partition"]): each["stored_up_to"] for each in stored},
            frozenset(each["id"] for each in unswept),
        )

    async def copy_begun_at(self, environment: str) -> datetime | None:
        """Since when it is being copied from another cell, so that rows are missing here; None where none are."""
        async with self.session() as session:
            begun_at: datetime | None = await session.fetchval(query("copy_begun_at"), environment)
        return begun_at

    async def page(self, after: Cursor, environment: str) -> Page:
        """The next changes of this environment."""
        async with self.session() as session:
            rows = await session.fetch(query("read_changes"), *after, PAGE_ROWS)
        changes = [
            Change(row["segment"], generation, row["context_key"], row["included"])
            for row in rows
            if row["environment"] == environment
            for generation in _generations(row)
        ]
        cursor = Cursor(rows[-1]["xid"], rows[-1]["segment_id"], rows[-1]["context_hash"]) if rows else after
        return Page(changes, cursor, len(rows) < PAGE_ROWS)

    async def rewind(self, name: str, epoch: int, cursor: Cursor) -> None:
        """Whoever leads since, applies again what is behind this cursor. Nothing where this epoch still leads."""
        async with self.session() as session:
            await session.execute(query("rewind_cursor"), name, epoch, *cursor)

    async def apply_again(self, names: Sequence[str]) -> None:
        """Everything in these projections, from the start of the feed, while they go on serving."""
        async with self.session() as session:
            await session.execute(query("apply_again"), list(names))

    async def set_generation(self, segment_id: int, generation: int, names: Sequence[str]) -> None:
        """From now on these projections hold this generation of the segment, once they have applied all again."""
        async with self.session() as session, session.transaction():
            await session.execute(query("set_generation"), segment_id, generation)
            await session.execute(query("apply_again"), list(names))

    async def begin_generation(self, environment: str, names: Sequence[str]) -> None:
        """From now on these projections hold the next generation of every segment too, once all is applied again.

        Where that had begun before, it goes on. Raises `GenerationKeptError`.
        """
        async with self.session() as session, session.transaction():
            if await session.fetchval(query("count_old_generations"), environment):
                raise GenerationKeptError
            await session.execute(query("begin_generation"), environment)
            await session.execute(query("apply_again"), list(names))

    async def finish_generation(self, environment: str) -> None:
        """The next generation becomes the one that SDKs should ask for; the one before is kept beside it."""
        async with self.session() as session:
            await session.execute(query("finish_generation"), environment)

    async def forget_generation(self, environment: str) -> None:
        """Nothing is kept any more beside the generation that SDKs should ask for."""
        async with self.session() as session:
            await session.execute(query("forget_generation"), environment)

    async def expected(self, environment: str, places: Sequence[Place]) -> dict[Place, Expected]:
        """What should stand in a target of these; what is in no segment that is known here is left out."""
        async with self.session() as session:
            rows = await session.fetch(query("find_memberships"), environment, *_columns(places))
        return {
            Place(row["segment"], row["context_hash"]): Expected(
                row["included"], frozenset(_generations(row)), row["is_known"]
            )
            for row in rows
        }

    async def members(self, environment: str) -> AsyncIterator[list[tuple[Place, Change]]]:
        """Everybody who is in, in pages."""
        after: tuple[int, UUID] = 0, UUID(int=0)
        while True:
            async with self.session() as session:
                rows = await session.fetch(query("read_members"), environment, *after, PAGE_ROWS)
            if not rows:
                return
            after = rows[-1]["segment_id"], rows[-1]["context_hash"]
            yield [
                (
                    Place(row["segment"], row["context_hash"]),
                    Change(row["segment"], generation, row["context_key"], included=True),
                )
                for row in rows
                for generation in _generations(row)
            ]

    async def touch(self, environment: str, places: Sequence[Place]) -> None:
        """These memberships come in the feed once more, as they are."""
        async with self.session() as session:
            await session.execute(query("touch_memberships"), environment, *_columns(places))

    async def projections(self) -> list[ProjectionState]:
        """What the projectors have told, by name."""
        async with self.session() as session:
            return [ProjectionState(**row) for row in await session.fetch(query("list_projections"))]

    async def marker(self, name: str) -> str | None:
        """What the target of this projection holds; None for one that nobody has led yet."""
        async with self.session() as session:
            found = await session.fetchval(query("find_marker"), name)
        return None if found is None else str(found)

    async def forget(self, name: str) -> bool:
        """Nothing is known of this projection any more. False for one that nobody knew. Raises `StillLedError`."""
        async with self.leading(name) as lead:
            if lead is None:
                raise StillLedError
            async with self.session() as session:
                await session.execute(query("forget_projection"), name)
            return lead.epoch > 1

    async def is_applied(self, name: str, next_xid: int) -> bool:
        """Whether every transaction before this one is in the target."""
        async with self.session() as session:
            return bool(await session.fetchval(query("is_applied"), name, str(next_xid)))


def _generations(row: asyncpg.Record) -> list[int]:
    """Of the segment, those that targets hold."""
    return [generation for generation in (row["generation"], row["other_generation"]) if generation is not None]


def _columns(places: Sequence[Place]) -> tuple[list[str], list[UUID]]:
    return [place.segment for place in places], [place.context_hash for place in places]
