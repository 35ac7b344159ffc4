"""What all that works on a pool of sessions has in common."""

from __future__ import annotations

from typing import Self

from stores.postgres.connection import Pool
from stores.postgres.migrating import require_schema


class Pooled:
    """Works on a pool of its own, from `async with` to its end."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pool.__aexit__(*exc)

    async def require_schema(self) -> None:
        """Raises `StoreRefusedError` unless the server is fit and its schema complete."""
        async with self._pool.session() as session:
            await require_schema(session)
