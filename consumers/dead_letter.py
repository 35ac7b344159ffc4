"""Dead letters: records, or members of records, that can never become deltas, kept with the reason.

The original's key, value and headers stay as they were; what is said about them stands in headers beside them
(interface.md 6). A dead letter counts only when every in-sync replica has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from typing import Self

import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from consumers.connection import KafkaConnection, any_key, key_as_it_was, topic_settings, why_unreachable
from consumers.errors import KafkaUnavailableError, Reason
from consumers.record import Origin, Record, origin_of

log = structlog.get_logger(__name__)

HEADER_PREFIX = "dead-letter-"
SEND_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
LARGEST_REQUEST_BYTES = 64 << 20
DEFAULT_TOPIC_LIMIT_BYTES = 1_048_588
CHUNK_BYTES = 8 << 20
_ENVELOPE_BYTES = 1024  # what Kafka adds around a record


class DeadLetter(msgspec.Struct, frozen=True):
    """One record, or with `members` some members of it, that was rejected for one reason."""

    record: Record
    reason: Reason
    detail: str
    members: tuple[int, ...] | None = None

    def headers(self) -> list[tuple[str, bytes | None]]:
        """The record's own headers, then what is said about it."""
        origin = _origin(self)
        said = {
            "reason": self.reason,
            "detail": self.detail,
            "topic": origin.topic,
            "partition": str(origin.partition),
            "offset": str(origin.offset),
            "timestamp": str(origin.timestamp_ms),
            "at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "version": version("cohort-sync"),
        }
        if self.members is not None:
            said["member"] = json.dumps(self.members)
        return [*self.record.headers, *((HEADER_PREFIX + name, text.encode()) for name, text in said.items())]


class DeadLetterProducer:
    """Writes dead letters and returns when they are safe."""

    def __init__(self, connection: KafkaConnection, *, topic: str) -> None:
        self._connection = connection
        self._topic = topic
        self._producer: AIOKafkaProducer | None = None
        self._limit_bytes: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._close()

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when all of them are acknowledged by all in-sync replicas.

        Raises `KafkaUnavailableError` otherwise; some may have been written then, and sending all again is harmless.
        """
        if not letters:
            return
        try:
            for chunk in _chunks(letters):
                # Issue 1101: a send does not return while the brokers are down.
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._send(chunk)
        except (TimeoutError, KafkaError) as exc:
            # A producer that failed may hold half-sent batches: the next try starts with a new one.
            await self._close()
            why = await why_unreachable(self._connection, exc)
            raise KafkaUnavailableError(f"dead letter topic {self._topic!r}: {why}") from exc

    async def _send(self, letters: Sequence[DeadLetter]) -> None:
        producer = await self._started()
        acknowledged = [
            await producer.send(self._topic, key=any_key(key), value=value, headers=headers)
            for letter in letters
            for key, value, headers in (self._fitted(letter),)
        ]
        await producer.flush()
        for outcome in await asyncio.gather(*acknowledged, return_exceptions=True):
            if isinstance(outcome, MessageSizeTooLargeError):
                self._limit_bytes = None  # the topic's limit was lowered: ask for it again
            if isinstance(outcome, BaseException):
                raise outcome

    async def _started(self) -> AIOKafkaProducer:
        if self._limit_bytes is None:
            self._limit_bytes = await self._ask_topic_limit()
        if self._producer is None:
            producer = AIOKafkaProducer(
                **self._connection.options(),
                acks="all",
                enable_idempotence=True,
                max_request_size=LARGEST_REQUEST_BYTES,
                linger_ms=5,
                key_serializer=key_as_it_was,
            )
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        self._connection.renew(self._producer.client)
        return self._producer

    async def _ask_topic_limit(self) -> int:
        settings = await topic_settings(self._connection, [self._topic])
        return int(settings[self._topic].get("max.message.bytes", DEFAULT_TOPIC_LIMIT_BYTES))

    def _fitted(self, letter: DeadLetter) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]:
        """Key, value and headers; what does not fit the topic is cut, with what it was said beside it."""
        record, said = letter.record, letter.headers()
        limit = self._limit_bytes or DEFAULT_TOPIC_LIMIT_BYTES
        room = limit - _ENVELOPE_BYTES - _size(said)
        if len(record.key or b"") + len(record.value or b"") <= room:
            return record.key, record.value, said
        was = {"bytes": len(record.value or b""), "sha256": sha256(record.value or b"").hexdigest()}
        key, headers = record.key, said
        if len(key or b"") > room // 2:
            # Even without a value it would not fit, and a dead letter that can't be written holds all partitions.
            key, headers = None, said[len(record.headers) :]
            was |= {"key_bytes": len(record.key or b""), "headers": len(record.headers)}
        room = max(0, limit - _ENVELOPE_BYTES - _size(headers) - len(key or b""))
        value = record.value and record.value[:room]
        return key, value, [*headers, (HEADER_PREFIX + "truncated", json.dumps(was).encode())]

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            await asyncio.wait_for(producer.stop(), STOP_TIMEOUT_S)
        except (TimeoutError, KafkaError) as exc:
            log.warning("dead_letter_producer_abandoned", error=type(exc).__name__)


def _origin(letter: DeadLetter) -> Origin:
    """Where the record first arrived; where its headers say that wrongly, where it stands."""
    record = letter.record
    if letter.reason is Reason.ORIGIN_INVALID:
        return Origin(record.topic, record.partition, record.offset, record.timestamp_ms)
    return origin_of(record)


def _size(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum(len(name) + len(value or b"") + 10 for name, value in headers)


def _chunks(letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """So few at a time that even a slow broker takes them within the timeout, and never none."""
    chunk: list[DeadLetter] = []
    size = 0
    for letter in letters:
        chunk.append(letter)
        size += _ENVELOPE_BYTES + len(letter.record.value or b"")
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
