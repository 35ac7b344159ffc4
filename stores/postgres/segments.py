"""Segments as the gateway reads and edits them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from stores.model import SegmentKey
from stores.postgres.connection import Pool
from stores.postgres.queries import query


class SegmentStore:
    """What a gateway asks of segments. Every method raises one of `stores.errors` and nothing else."""

    def __init__(self, dsn: str) -> None:
        self._pool = Pool(dsn, max_size=4)

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pool.__aexit__(*exc)

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
