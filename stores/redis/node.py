"""One server of Redis or Valkey: many commands in one exchange, and nothing left on its way where one failed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 5.0
HEALTH_CHECK_S = 15

Command = Sequence[str | bytes]


class Node:
    """Connections to one server, made on demand."""

    def __init__(
        self,
        connection_class: type[AbstractConnection],
        options: Mapping[str, Any],
        *,
        abandoned: Mapping[str, Redis],
    ) -> None:
        self._connection_class = connection_class
        self._options = options
        self._abandoned = dict(abandoned)
        """By the names of their connections, the clients that may have sent what was never acknowledged."""
        self._may_not_kill = False
        self._open()

    def _open(self) -> None:
        self._name = f"cohort-sync-{uuid4()}"
        own = {
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": None,  # a limit for each answer would cost more than the answer; see target.py
            "health_check_interval": HEALTH_CHECK_S,
            "retry": Retry(NoBackoff(), 0),  # the projector tries again, from its cursor
            "client_name": self._name,
        }
        pool = ConnectionPool(self._connection_class, max_connections=2, **{**self._options, **own})
        self.client: Redis = Redis.from_pool(pool)

    async def close(self) -> None:
        """Ends the connections."""
        for client in (self.client, *self._abandoned.values()):
            with suppress(RedisError, OSError):
                await client.aclose()

    def clients(self) -> dict[str, Redis]:
        """All that may have something on its way, by the names of their connections."""
        return self._abandoned | {self._name: self.client}

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, errors among them. The client's own pipelines take three times as long for the same bytes."""
        if not commands:
            return []
        async with self._connection() as connection:
            return await _asked(connection, commands)

    async def set_while(self, watched: str, expected: bytes, key: str, value: str) -> bool:
        """Sets the key while the watched one holds what is expected; False, and nothing set, where it does not."""
        async with self._connection() as connection:
            _, found = await _asked(connection, [("WATCH", watched), ("GET", watched)])
            if found != expected:
                await _asked(connection, [("UNWATCH",)])
                return False
            *_, done = await _asked(connection, [("MULTI",), ("SET", key, value), ("EXEC",)])
        if isinstance(done, RedisError):
            raise done
        return done is not None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        """One of ours. Where an exchange fails, all of them are left, and `settle` ends what is still on its way."""
        pool = self.client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            yield connection
        except BaseException:
            self._abandoned[self._name] = self.client
            self._open()
            raise
        await pool.release(connection)

    async def settle(self) -> None:
        """Ends on the server what exchanges that failed have left, so that it reads no more from there.

        What a frozen server, or a network that comes back, still has of ours would otherwise be done after what we sent
        later on another connection.
        """
        if not self._abandoned:
            return
        for client in self._abandoned.values():
            with suppress(RedisError, OSError):
                await client.aclose()
        try:
            for each in await self.client.client_list():
                if each["name"] in self._abandoned:
                    await self.client.client_kill_filter(_id=each["id"])
        except NoPermissionError:
            # Without the right to do so: the answer came after what the server had read of the old ones.
            if not self._may_not_kill:
                log.warning("redis_connections_not_ended", needs="CLIENT LIST, CLIENT KILL")
            self._may_not_kill = True
        self._abandoned.clear()


def _packed(command: Command) -> bytes:
    """A command as Redis reads it. Source: "Sending commands to a Redis server" of its protocol specification."""
    packed = [b"*%d\r\n" % len(command)]
    for part in command:
        raw = part if isinstance(part, bytes) else part.encode()
        packed.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(packed)


async def _asked(connection: AbstractConnection, commands: Sequence[Command]) -> list[Any]:
    await connection.send_packed_command(b"".join(map(_packed, commands)))
    return [await _answer(connection) for _ in commands]


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as exc:
        return exc
