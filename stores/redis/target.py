"""A target in Redis or Valkey.

Sources of the format: LaunchDarkly's `redis_big_segment_store.py` (Python SDK) and `store_redis.go` (Relay Proxy).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from redis.exceptions import AuthenticationError, RedisError

from stores.errors import StoreUnavailableError
from stores.redis.servers import Servers
from stores.target import Change, Reference, TargetDamagedError, context_reference, reference_of, segment_reference

DEFAULT_PREFIX = "launchdarkly"
"""The SDKs' own."""
CHUNK_CHANGES = 1_000
CHUNK_CHARACTERS = 1 << 20
SCAN_KEYS = 1_000
ANSWER_TIMEOUT_S = 10.0
_WRONG_TYPE = "WRONGTYPE"


class RedisTarget:
    """`AuditableTarget` in one server or in a cluster. No transaction spans two nodes of a cluster."""

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        prefix: str | None = None,
        ssl_cafile: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
    ) -> None:
        prefix = prefix or DEFAULT_PREFIX
        self._included = f"{prefix}:big_segment_include:"
        self._excluded = f"{prefix}:big_segment_exclude:"
        self._synchronized_on = f"{prefix}:big_segments_synchronized_on"
        self._marks = f"{prefix}:cohort_sync_marker:"
        # In a cluster on the same node as the key above, so that one transaction may span the two.
        self._marker = f"{self._marks}{{{self._synchronized_on}}}"
        self._seen: bytes | None = None
        """What the marker held when we last looked at it or left it."""
        current = (lambda: url) if isinstance(url, str) else url  # asked before each connection: passwords are replaced
        self._servers = Servers(current, ssl_ca_certs=ssl_cafile, ssl_certfile=ssl_certfile, ssl_keyfile=ssl_keyfile)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._servers.close()

    async def apply(self, changes: Sequence[Change]) -> Sequence[Reference]:
        """See `Target.apply`. A set whose last member leaves goes by itself. No set of ours is too large for it."""
        commands = [
            self._command(
                "SADD" if change.included else "SREM",
                Reference(change.segment, change.generation, context_reference(change.context_key)),
            )
            for change in changes
        ]
        for chunk in _chunks(commands):
            async with _in_time():
                await self._check([key for _, key, _ in chunk], await self._servers.ask(chunk))
        return ()

    async def settle(self) -> None:
        """See `Target.settle`. The servers are told to end our old connections."""
        async with _in_time():
            await self._servers.settle()

    async def marker(self) -> str | None:
        """See `Target.marker`. A server that was started anew may have lost what it had acknowledged last.

        Where the URL leads elsewhere by now, it is asked there.
        """
        async with _in_time():
            await self._servers.renew()
            keys = await self._servers.marked_keys(self._marker, self._marks)
            found = set(_without_errors(await self._servers.ask([("GET", key) for key in keys])))
            if len(found) > 1 or None in found:
                return None
            self._seen = found.pop()
            marker, _, identity = _text(self._seen).partition(" ")
            return marker if identity == await self._servers.identity() else None

    async def mark(self, marker: str) -> None:
        """See `Target.mark`."""
        async with _in_time():
            _without_errors(await self._servers.ask([("UNLINK", self._synchronized_on)]))
            text = f"{marker} {await self._servers.identity()}"
            keys = await self._servers.marked_keys(self._marker, self._marks)
            _without_errors(await self._servers.ask([("SET", key, text) for key in keys]))
            self._seen = text.encode()

    async def synchronize(self, on_ms: int) -> bool:
        """See `Target.synchronize`. Only under the marker that was seen last, which a flush takes away.

        In a cluster that is so for the server that this is told by; one of the others is seen in the next round.
        """
        if self._seen is None:
            return False
        async with _in_time():
            node = await self._servers.node_of(self._marker)
            return await node.set_while(self._marker, self._seen, self._synchronized_on, str(on_ms))

    async def synchronized_on(self) -> int | None:
        """See `Target.synchronized_on`."""
        async with _in_time():
            (told,) = _without_errors(await self._servers.ask([("GET", self._synchronized_on)]))
        return int(told) if told else None

    async def references(self) -> AsyncIterator[list[Reference]]:
        """See `AuditableTarget.references`. Members that no SDK would look for are left out."""
        async with _in_time():
            nodes = await self._servers.primaries()
        for node in nodes:
            cursor: bytes | None = None
            while cursor != b"0":
                async with _in_time():
                    scan = ("SCAN", cursor or b"0", "MATCH", f"{_literal(self._included)}*", "COUNT", str(SCAN_KEYS))
                    ((cursor, keys),) = _without_errors(await node.ask([scan]))
                    answers = await self._servers.ask([("SMEMBERS", key) for key in keys])
                    _without_errors([each for each in answers if not _is_wrong_type(each)])
                yield list(self._references(keys, answers))

    def _references(self, keys: Sequence[bytes], answers: Sequence[object]) -> Iterator[Reference]:
        for key, members in zip(keys, answers, strict=True):
            context = _text(key).removeprefix(self._included)
            for member in members if isinstance(members, (set, list)) else ():
                if reference := reference_of(_text(member), context):
                    yield reference

    async def hold(self, references: Sequence[Reference]) -> list[bool]:
        """See `AuditableTarget.hold`."""
        async with _in_time():
            answers = await self._servers.ask([self._command("SISMEMBER", each) for each in references])
            _without_errors([each for each in answers if not _is_wrong_type(each)])
        return [answer == 1 for answer in answers]

    async def remove(self, references: Sequence[Reference]) -> None:
        """See `AuditableTarget.remove`."""
        async with _in_time():
            _without_errors(await self._servers.ask([self._command("SREM", each) for each in references]))

    async def forget(self, context: str) -> None:
        """See `AuditableTarget.forget`."""
        async with _in_time():
            keys = (self._included + context, self._excluded + context)
            _without_errors(await self._servers.ask([("UNLINK", key) for key in keys]))

    def _command(self, name: str, reference: Reference) -> tuple[str, str, str]:
        key = self._included + reference.context
        return name, key, segment_reference(reference.segment, reference.generation)

    async def _check(self, keys: Sequence[str], answers: Sequence[Any]) -> None:
        damaged = []
        for key, answer in zip(keys, answers, strict=True):
            if _is_wrong_type(answer):
                damaged.append(key)
            elif isinstance(answer, RedisError):
                raise answer
        if damaged:
            # Nobody can read them as they are, and which other segments should stand in them is not known here.
            _without_errors(await self._servers.ask([("UNLINK", key) for key in damaged]))
            raise TargetDamagedError(f"{len(damaged)} keys were of another type, and are removed")


def _chunks(commands: Sequence[tuple[str, str, str]]) -> Iterator[Sequence[tuple[str, str, str]]]:
    """So many at a time as a server answers in milliseconds."""
    start = size = 0
    for place, (_, key, reference) in enumerate(commands):
        size += len(key) + len(reference)
        if place + 1 - start == CHUNK_CHANGES or size >= CHUNK_CHARACTERS:
            yield commands[start : place + 1]
            start, size = place + 1, 0
    if start < len(commands):
        yield commands[start:]


def _is_wrong_type(answer: object) -> bool:
    return isinstance(answer, RedisError) and str(answer).startswith(_WRONG_TYPE)


def _without_errors(answers: Sequence[Any]) -> Sequence[Any]:
    """The answers. Raises the first error among them."""
    for answer in answers:
        if isinstance(answer, RedisError):
            raise answer
    return answers


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
    if isinstance(exc, AuthenticationError):
        return "the user or the password is wrong"
    for each in (exc, exc.__cause__, exc.__context__):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({each.verify_message.rstrip('.')})"
    word = str(exc).partition(" ")[0]
    return f"{type(exc).__name__} ({word})" if word.isupper() and word.isalpha() else type(exc).__name__
