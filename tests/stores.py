"""What the contract suite needs of a store beyond its promises: to be emptied, and to be looked into."""

from __future__ import annotations

from typing import Protocol, Self

import asyncpg

from stores.base import SegmentStore
from stores.model import Version
from stores.postgres.writing import PostgresStore
from tests.memory_store import MemoryStore
from worker.sweeper import finish_sweeps


class StoreUnderTest(SegmentStore, Protocol):
    """A segment store whose whole state can be read."""

    async def reset(self) -> None: ...

    async def memberships(self) -> dict[tuple[str, str], tuple[bool, Version]]: ...

    async def included_counts(self) -> dict[str, int]:
        """By segment, how many are in, once everything is swept."""

    async def cohort_names(self) -> dict[str, str | None]: ...


class MemoryStoreUnderTest(MemoryStore):
    """The fold, emptied by beginning anew."""

    async def reset(self) -> None:
        self.__init__()  # type: ignore[misc]


class PostgresStoreUnderTest(PostgresStore):
    """The real store, read with plain SQL of the tests' own."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, pool_max_size=4)
        self._dsn = dsn

    async def __aenter__(self) -> Self:
        self._eyes = await asyncpg.connect(self._dsn)
        return await super().__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        await self._eyes.close()
        await super().__aexit__(*exc)

    async def reset(self) -> None:
        await self._eyes.execute("TRUNCATE membership, clearing, segment, topic, environment RESTART IDENTITY CASCADE")

    async def memberships(self) -> dict[tuple[str, str], tuple[bool, Version]]:
        rows = await self._eyes.fetch(
            "SELECT key, context_key, included, event_time, position "
            "FROM membership_in_force JOIN segment ON id = segment_id"
        )
        return {
            (row["key"], row["context_key"]): (row["included"], Version(row["event_time"], row["position"]))
            for row in rows
        }

    async def included_counts(self) -> dict[str, int]:
        await finish_sweeps(self)
        return dict(await self._eyes.fetch("SELECT key, included_count FROM segment"))

    async def cohort_names(self) -> dict[str, str | None]:
        return dict(await self._eyes.fetch("SELECT key, cohort_name FROM segment"))
