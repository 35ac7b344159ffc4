"""Access tokens of the gateway: who may send what, kept as hashes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from stores.postgres.connection import Dsn, Pool, connected
from stores.postgres.migrating import require_schema
from stores.postgres.pooled import Pooled
from stores.postgres.queries import query

if TYPE_CHECKING:
    from asyncpg import Connection


class TokenInForce(msgspec.Struct, frozen=True):
    """What a gateway has to know of a token."""

    id: str
    sha256: bytes
    policy: str
    """The statements as JSON."""
    feed: str | None


class StoredToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token as people see it."""

    id: str
    name: str
    sha256: bytes
    role: str | None
    policy: str
    feed: str | None
    created_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class TokenStore(Pooled):
    """What a gateway asks of the tokens. Every method raises one of `stores.errors` and nothing else."""

    def __init__(self, dsn: Dsn) -> None:
        super().__init__(Pool(dsn, max_size=1))

    async def fingerprint(self) -> str:
        """Something that differs whenever a token was made or revoked."""
        async with self._pool.session() as session:
            found: str = await session.fetchval(query("tokens_fingerprint"))
            return found

    async def in_force(self) -> list[TokenInForce]:
        """Every token that is not revoked."""
        async with self._pool.session() as session:
            return [TokenInForce(**row) for row in await session.fetch(query("tokens_in_force"))]

    async def note_use(self, last_used: Mapping[str, datetime]) -> None:
        """When these tokens were last used, by id."""
        async with self._pool.session() as session:
            await session.execute(query("note_token_use"), list(last_used), list(last_used.values()))


class TokenAdmin:
    """Makes and revokes tokens, for people."""

    def __init__(self, session: Connection) -> None:
        self._session = session

    async def create(self, token: TokenInForce, *, name: str, role: str | None) -> None:
        """Keeps a new token; its secret is the caller's to show."""
        await self._session.execute(query("create_token"), token.id, name, token.sha256, role, token.policy, token.feed)

    async def tokens(self) -> list[StoredToken]:
        """All of them, revoked ones too, in the order in which they were made."""
        return [StoredToken(**row) for row in await self._session.fetch(query("list_tokens"))]

    async def revoke(self, token_id: str) -> str | None:
        """Ends it, also where it was ended before. Its name, or None where there is none of this id."""
        name: str | None = await self._session.fetchval(query("revoke_token"), token_id)
        return name


@asynccontextmanager
async def token_admin(dsn: str) -> AsyncIterator[TokenAdmin]:
    """An administrator on a session of its own, which is refused while the schema is not complete."""
    async with connected(dsn) as session:
        await require_schema(session)
        yield TokenAdmin(session)
