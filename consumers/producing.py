"""Single records to Kafka, each acknowledged by all in-sync replicas before anybody is told that it was taken."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    RecordTooLargeError,
)
from aiokafka.partitioner import murmur2

from consumers.connection import KafkaConnection, any_key, key_as_it_was, why_unreachable
from consumers.deadlines import Deadlines
from consumers.errors import KafkaUnavailableError
from consumers.inspection import Outgoing

ACKNOWLEDGED_WITHIN_S = 10.0
"""Longer than a leader needs to move, and shorter than those who wait for an answer."""
STOP_TIMEOUT_S = 10.0
LINGER_MS = 2
"""So long a record waits for others that go with it: identify calls come by the thousand."""
BATCH_BYTES = 1 << 18
KNOWN_KEYS = 10_000
LARGEST_REQUEST_BYTES = 80 << 20


class TooLargeForTopicError(Exception):
    """The topic takes no record of this size."""


class AcknowledgedProducer:
    """Sends records side by side. One that failed is replaced, since it may hold half-sent batches."""

    def __init__(self, connection: KafkaConnection, *, timeout_s: float = ACKNOWLEDGED_WITHIN_S) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._deadlines = Deadlines(timeout_s)
        self._batch_bytes = BATCH_BYTES
        """Smaller than this once a topic has refused a batch."""
        self._producer: AIOKafkaProducer | None = None
        self._starting: asyncio.Task[AIOKafkaProducer] | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        if self._producer is not None:
            self._replace(self._producer)
        await asyncio.gather(*self._stopping)

    async def send(self, record: Outgoing) -> None:
        """Returns when it is safe.

        Raises `KafkaUnavailableError` when that can't be said in time: it may have been written then, and sending it
        again is harmless. Raises `TooLargeForTopicError`.
        """
        producer: AIOKafkaProducer | None = None
        is_written = False
        try:
            with self._deadlines.wait():
                while not is_written:
                    producer = self._producer or await self._started()
                    is_written = await self._sent_by(producer, record)
        except RecordTooLargeError as exc:
            raise TooLargeForTopicError from exc
        except (TimeoutError, KafkaError) as exc:
            if producer is not None:
                self._replace(producer)
            raise KafkaUnavailableError(type(exc).__name__) from exc

    async def _sent_by(self, producer: AIOKafkaProducer, record: Outgoing) -> bool:
        """Whether this producer could send it. Another one can where it can't, since then it was not written."""
        try:
            acknowledged = await producer.send(
                record.topic, record.value, any_key(record.key), headers=list(record.headers)
            )
            await acknowledged
        except OutOfOrderSequenceNumber:
            # A batch that was refused before this one, as too large, has left a gap in the numbers.
            self._replace(producer)
            return False
        except MessageSizeTooLargeError as exc:
            # Of a batch, all records are told so. The topic may take them in smaller ones.
            was_alone = len(record.value or b"") > self._batch_bytes
            if self._producer is producer and not was_alone:
                self._batch_bytes //= 2
            self._replace(producer)
            if was_alone:
                raise TooLargeForTopicError from exc
            return False
        return True

    async def check(self, topics: Iterable[str]) -> list[str]:
        """Asks the brokers whether they are there, and which of these topics are not. Raises KafkaUnavailableError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                client = (await self._started()).client
                self._connection.renew(client)
                for topic in topics:
                    client.add_topic(topic)
                if not await client.force_metadata_update():
                    raise KafkaConnectionError
        except (TimeoutError, KafkaError) as exc:
            raise KafkaUnavailableError(await why_unreachable(self._connection, exc)) from exc
        return sorted(topic for topic in topics if not client.cluster.partitions_for_topic(topic))

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is not None:
            return self._producer
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start(), name="producer-start")
            self._starting.add_done_callback(_look_at)
        return await asyncio.shield(self._starting)

    async def _start(self) -> AIOKafkaProducer:
        options = self._connection.options() | {"request_timeout_ms": round(self._timeout_s * 900)}
        producer = AIOKafkaProducer(
            **options,
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            max_batch_size=self._batch_bytes,
            max_request_size=LARGEST_REQUEST_BYTES,
            key_serializer=key_as_it_was,
            partitioner=_partition,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
        except BaseException:
            self._stop_aside(producer)
            raise
        self._producer = producer
        return producer

    def _replace(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            self._stop_aside(producer)

    def _stop_aside(self, producer: AIOKafkaProducer) -> None:
        """What it has in hand may still be acknowledged meanwhile."""
        stopping = asyncio.create_task(_stop(producer), name="producer-stop")
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)


def _partition(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
    """As every other client of Kafka has it, but remembered: tools send the same keys over and over."""
    if key is None:
        return random.choice(available or partitions)  # noqa: S311 - no secret depends on it
    return partitions[_hash(key) % len(partitions)]


@lru_cache(maxsize=KNOWN_KEYS)
def _hash(key: bytes) -> int:
    found: int = murmur2(key) & 0x7FFFFFFF
    return found


async def _stop(producer: AIOKafkaProducer) -> None:
    # Issue 1101: a stop does not return while the brokers are down.
    with suppress(TimeoutError, KafkaError):
        await asyncio.wait_for(producer.stop(), STOP_TIMEOUT_S)


def _look_at(done: asyncio.Future[object]) -> None:
    """An error that nobody waits for any more is no surprise."""
    if not done.cancelled():
        done.exception()
