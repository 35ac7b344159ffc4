"""A target in Redis or Valkey.

Sources of the format: LaunchDarkly's `redis_big_segment_store.py` (Python SDK) and `store_redis.go` (Relay Proxy).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError, WatchError

from stores.errors import StoreUnavailableError
from stores.target import Change, Reference, TargetDamagedError, context_reference, segment_reference

log = structlog.get_logger(__name__)

DEFAULT_PREFIX = "launchdarkly"
"""The SDKs' own."""
CHUNK_CHANGES = 1_000
"""So many commands in one pipeline: some 150 KB, which a server answers in milliseconds."""
SCAN_KEYS = 1_000
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
HEALTH_CHECK_S = 15
_WRONG_TYPE = "WRONGTYPE"


class RedisTarget:
    """`Target` in Redis. No transaction spans two nodes of a cluster."""

    def __init__(self, url: str, *, prefix: str | None = None) -> None:
        prefix = prefix or DEFAULT_PREFIX
        self._included = f"{prefix}:big_segment_include:"
        self._excluded = f"{prefix}:big_segment_exclude:"
        self._synchronized_on = f"{prefix}:big_segments_synchronized_on"
        # In a cluster on the same node as the key above, so that one transaction may span the two.
        self._marker = f"cohort_sync_marker:{{{self._synchronized_on}}}"
        if "{" in prefix:
            self._marker = f"{self._synchronized_on}:cohort_sync_marker"
        self._url = url
        self._abandoned: dict[str, Redis] = {}
        """By the names of their connections, the clients that may have sent what was never acknowledged."""
        self._open()

    def _open(self) -> None:
        self._name = f"cohort-sync-{uuid4()}"
        self._client: Redis = Redis.from_url(
            self._url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=None,  # see `_in_time`
            health_check_interval=HEALTH_CHECK_S,
            retry=Retry(NoBackoff(), 0),  # the projector tries again, from its cursor
            client_name=self._name,
            max_connections=2,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for client in (self._client, *self._abandoned.values()):
            with suppress(RedisError, OSError):
                await client.aclose()

    async def apply(self, changes: Sequence[Change]) -> Sequence[Reference]:
        """See `Target.apply`. A set whose last member leaves goes by itself. No set of ours is too large for it."""
        for start in range(0, len(changes), CHUNK_CHANGES):
            await self._apply(changes[start : start + CHUNK_CHANGES])
        return ()

    async def settle(self) -> None:
        """See `Target.settle`. The server is told to end our old connections, so that it reads no more from them.

        What a frozen server, or a network that comes back, still has of ours would otherwise be done after what we sent
        later on another connection.
        """
        if not self._abandoned:
            return
        async with _in_time():
            for client in self._abandoned.values():
                with suppress(RedisError, OSError):
                    await client.aclose()
            try:
                for each in await self._client.client_list():
                    if each["name"] in self._abandoned:
                        await self._client.client_kill_filter(_id=each["id"])
            except NoPermissionError:
                # Without the right to do so: the answer came after what the server had read of the old ones.
                log.warning("redis_connections_not_ended", needs="CLIENT LIST, CLIENT KILL")
        self._abandoned.clear()

    async def marker(self) -> str | None:
        """See `Target.marker`."""
        async with _in_time():
            found = await self._client.get(self._marker)
        return None if found is None else _text(found)

    async def mark(self, marker: str) -> None:
        """See `Target.mark`."""
        async with _in_time():
            await self._client.delete(self._synchronized_on)
            await self._client.set(self._marker, marker)

    async def synchronize(self, on_ms: int) -> bool:
        """See `Target.synchronize`. A flush takes the marker away, so it can't come in between unseen."""
        async with _in_time(), self._client.pipeline(transaction=True) as pipeline:
            await pipeline.watch(self._marker)
            if await pipeline.get(self._marker) is None:
                return False
            pipeline.multi()  # type: ignore[no-untyped-call]
            pipeline.set(self._synchronized_on, on_ms)
            try:
                await pipeline.execute()
            except WatchError:
                return False
        return True

    async def references(self) -> AsyncIterator[list[Reference]]:
        """See `AuditableTarget.references`. Members that no SDK would look for are left out."""
        cursor: int | None = None
        while cursor != 0:
            async with _in_time():
                cursor, keys = await self._client.scan(
                    cursor or 0, match=f"{_literal(self._included)}*", count=SCAN_KEYS
                )
                answers = await self._pipelined([("SMEMBERS", key) for key in keys])
            contexts = [_text(key).removeprefix(self._included) for key in keys]
            yield [
                Reference(segment, int(generation), context)
                for context, members in zip(contexts, answers, strict=True)
                for member in (members if isinstance(members, (set, list)) else ())
                for segment, mark, generation in (_text(member).rpartition(".g"),)
                if mark and generation.isdecimal() and generation.isascii()
            ]

    async def hold(self, references: Sequence[Reference]) -> list[bool]:
        """See `AuditableTarget.hold`."""
        async with _in_time():
            return [
                answer == 1
                for answer in await self._pipelined([self._command("SISMEMBER", each) for each in references])
            ]

    async def remove(self, references: Sequence[Reference]) -> None:
        """See `AuditableTarget.remove`."""
        async with _in_time():
            for answer in await self._pipelined([self._command("SREM", each) for each in references]):
                if isinstance(answer, RedisError):
                    raise answer

    async def forget(self, context: str) -> None:
        """See `AuditableTarget.forget`."""
        async with _in_time():
            keys = (self._included + context, self._excluded + context)
            for answer in await self._pipelined([("UNLINK", key) for key in keys]):
                if isinstance(answer, RedisError):
                    raise answer

    def _command(self, name: str, reference: Reference) -> tuple[str, str, str]:
        key = self._included + reference.context
        return name, key, segment_reference(reference.segment, reference.generation)

    async def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers, errors among them. The client's own pipelines take three times as long for the same bytes."""
        if not commands:
            return []
        pool = self._client.connection_pool
        try:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            await connection.send_packed_command(b"".join(map(_packed, commands)))
            answers = [await _answer(connection) for _ in commands]
            await pool.release(connection)
        except BaseException:
            self._abandoned[self._name] = self._client
            self._open()
            raise
        return answers

    async def _apply(self, changes: Sequence[Change]) -> None:
        async with _in_time():
            commands = [
                self._command(
                    "SADD" if change.included else "SREM",
                    Reference(change.segment, change.generation, context_reference(change.context_key)),
                )
                for change in changes
            ]
            answers = await self._pipelined(commands)
            await self._check([key for _, key, _ in commands], answers)

    async def _check(self, keys: Sequence[str], answers: Sequence[Any]) -> None:
        damaged = []
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, RedisError):
                if not str(answer).startswith(_WRONG_TYPE):
                    raise answer
                damaged.append(key)
        if damaged:
            # Nobody can read them as they are, and which other segments should stand in them is not known here.
            for key in damaged:
                await self._client.unlink(key)
            raise TargetDamagedError(f"{len(damaged)} keys were of another type, and are removed")


def _packed(command: Sequence[str | bytes]) -> bytes:
    """A command as Redis reads it. Source: "Sending commands to a Redis server" of its protocol specification."""
    packed = [b"*%d\r\n" % len(command)]
    for part in command:
        raw = part if isinstance(part, bytes) else part.encode()
        packed.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(packed)


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as exc:
        return exc


def _text(answer: object) -> str:
    """What Redis answered, whatever its bytes."""
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)


def _literal(text: str) -> str:
    """The text in a pattern of SCAN."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """One exchange with the server. A time limit for each answer would cost more than the answer."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            yield
    except (RedisError, OSError) as exc:
        raise StoreUnavailableError("Redis", _described(exc)) from None


def _described(exc: BaseException) -> str:
    """The kind of error, and Redis's own word for it (OOM, READONLY, NOAUTH): its texts may quote a key."""
    word = str(exc).partition(" ")[0]
    return f"{type(exc).__name__} ({word})" if word.isupper() and word.isalpha() else type(exc).__name__
