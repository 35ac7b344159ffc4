"""A target in Redis or Valkey.

Sources of the format: LaunchDarkly's `redis_big_segment_store.py` (Python SDK) and `store_redis.go` (Relay Proxy).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError

from stores.errors import StoreUnavailableError
from stores.target import Change, TargetDamagedError, context_reference, segment_reference

DEFAULT_PREFIX = "launchdarkly"
"""The SDKs' own."""
CHUNK_CHANGES = 1_000
"""So many commands in one pipeline: some 150 KB, which a server answers in milliseconds."""
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
HEALTH_CHECK_S = 15
_WRONG_TYPE = "WRONGTYPE"


class RedisTarget:
    """`Target` in Redis. No transaction spans two nodes of a cluster."""

    def __init__(self, url: str, *, prefix: str | None = None) -> None:
        prefix = prefix or DEFAULT_PREFIX
        self._included = f"{prefix}:big_segment_include:"
        self._synchronized_on = f"{prefix}:big_segments_synchronized_on"
        # In a cluster on the same node as the key above, so that one transaction may span the two.
        self._marker = f"cohort_sync_marker:{{{self._synchronized_on}}}"
        if "{" in prefix:
            self._marker = f"{self._synchronized_on}:cohort_sync_marker"
        self._client: Redis = Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            health_check_interval=HEALTH_CHECK_S,
            retry=Retry(NoBackoff(), 0),  # the projector tries again, from its cursor
            client_name="cohort-sync",
            max_connections=2,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def apply(self, changes: Sequence[Change]) -> None:
        """See `Target.apply`. A set whose last member leaves goes by itself."""
        for start in range(0, len(changes), CHUNK_CHANGES):
            await self._apply(changes[start : start + CHUNK_CHANGES])

    async def marker(self) -> str | None:
        """See `Target.marker`."""
        with _errors():
            found = await self._client.get(self._marker)
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else found

    async def mark(self, marker: str) -> None:
        """See `Target.mark`."""
        with _errors():
            await self._client.delete(self._synchronized_on)
            await self._client.set(self._marker, marker)

    async def synchronize(self, on_ms: int) -> bool:
        """See `Target.synchronize`. A flush takes the marker away, so it can't come in between unseen."""
        with _errors():
            async with self._client.pipeline(transaction=True) as pipeline:
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

    async def _apply(self, changes: Sequence[Change]) -> None:
        with _errors():
            async with self._client.pipeline(transaction=False) as pipeline:
                keys = [self._included + context_reference(change.context_key) for change in changes]
                for key, change in zip(keys, changes, strict=True):
                    command = "SADD" if change.included else "SREM"
                    pipeline.execute_command(command, key, segment_reference(change.segment, change.generation))
                answers = await pipeline.execute(raise_on_error=False)
            await self._check(keys, answers)

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


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as exc:
        raise StoreUnavailableError("Redis", _described(exc)) from None


def _described(exc: BaseException) -> str:
    """The kind of error, and Redis's own word for it (OOM, READONLY, NOAUTH): its texts may quote a key."""
    word = str(exc).partition(" ")[0]
    return f"{type(exc).__name__} ({word})" if word.isupper() and word.isalpha() else type(exc).__name__
