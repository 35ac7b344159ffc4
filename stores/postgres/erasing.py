"""Erasure: a person's memberships go, and a salted hash stays that keeps them from coming back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from stores.postgres.connection import WRITER_SESSION, connected
from stores.postgres.copy_rows import context_id
from stores.postgres.migrating import require_schema
from stores.postgres.queries import query

if TYPE_CHECKING:
    from uuid import UUID

    from asyncpg import Connection

LOOK_EVERY_S = 0.05


class ErasedMembership(NamedTuple):
    """A row that goes: where it was, and whether the person was in."""

    environment: str
    segment: str
    context_kind: str
    included: bool


class Erasures:
    """Who was erased, and the steps of erasing somebody: `bar`, `memberships`, `put_out`, `delete`.

    Each step may be repeated, so that an erasure that was interrupted is simply begun again. Every method raises one of
    `stores.errors` and nothing else.
    """

    def __init__(self, session: Connection) -> None:
        self._session = session

    async def bar(self, context_key: str) -> datetime:
        """From now on nothing that is written brings this person in. Returns since when that is so.

        Returns once no transaction runs any more that may not have seen it.
        """
        barred_at: datetime = await self._session.fetchval(query("note_erasure"), context_id(context_key))
        await self.seen_by_all_writers()
        return barred_at

    async def seen_by_all_writers(self) -> None:
        """Returns once no transaction runs any more that may not have seen who is barred by now."""
        # Whoever wrote without seeing it had an id before that was committed, and so before this one.
        xid = await self._session.fetchval(query("current_xid"))
        while True:
            if await self._session.fetchval(query("have_passed"), xid):
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def memberships(self, context_key: str) -> list[ErasedMembership]:
        """Every row about this person."""
        return [
            ErasedMembership(**row)
            for row in await self._session.fetch(query("list_memberships_of"), context_id(context_key))
        ]

    async def put_out(self, context_key: str) -> None:
        """Out of every segment, by way of the change feed, so that projectors follow."""
        await self.put_out_context(context_id(context_key))

    async def put_out_context(self, context: UUID) -> bool:
        """The same of one of whom only the hash is known. False for one who was in none."""
        async with self._session.transaction():
            put_out: str = await self._session.execute(query("put_out_everywhere"), context)
            await self._session.execute(query("count_flips"))
        return put_out != "UPDATE 0"

    async def delete(self, context_key: str) -> None:
        """The rows themselves. To be called when no projector needs them any more."""
        await self._session.execute(query("delete_everywhere"), context_id(context_key))
        await self._session.execute(query("delete_rejects_naming"), msgspec.json.encode(context_key)[1:-1].decode())

    async def lift(self, context_key: str) -> bool:
        """From now on the person may come in again. False for one who was not erased."""
        status: str = await self._session.execute(query("lift_erasure"), context_id(context_key))
        return status != "INSERT 0 0"

    async def erased_at(self, context_key: str) -> datetime | None:
        """Since when this person is erased; None for one who is not."""
        found: datetime | None = await self._session.fetchval(query("erased_at"), context_id(context_key))
        return found

    async def exist(self) -> bool:
        """Whether anybody was erased."""
        exist: bool = await self._session.fetchval(query("have_erasures"))
        return exist

    async def among(self, texts: Collection[str]) -> set[str]:
        """Those of these texts that are the key of somebody who was erased."""
        by_hash = {context_id(text): text for text in texts if _is_a_key(text)}
        found = await self._session.fetch(query("find_erased"), list(by_hash))
        return {by_hash[row["context_hash"]] for row in found}


@asynccontextmanager
async def postgres_erasures(dsn: str) -> AsyncIterator[Erasures]:
    """Erasures on a session of their own, which is refused while the schema is not complete."""
    # Rows of one context are looked up segment by segment, whatever the planner thinks of the tables' sizes.
    async with connected(dsn, **WRITER_SESSION) as session:
        await require_schema(session)
        yield Erasures(session)


def _is_a_key(text: str) -> bool:
    """Whether it can be one at all: half a surrogate pair is no text."""
    return bool(text) and not any("\ud800" <= each <= "\udfff" for each in text)
