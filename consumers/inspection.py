"""Looking into Kafka for people: which topics exist, how far the group is, one record, all dead letters.

Nothing here joins the consumer group, so looking never causes a rebalance.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as ClientTopicPartition
from aiokafka.errors import KafkaError, for_code

from consumers.connection import (
    KafkaConnection,
    admin_client,
    all_partitions,
    any_key,
    key_as_it_was,
    topic_settings,
    why_unreachable,
)
from consumers.errors import KafkaUnavailableError
from consumers.feeds import Feed
from consumers.group import saying_of
from consumers.record import Record, TopicPartition

READ_TIMEOUT_S = 15.0
READ_AHEAD_RECORDS = 1_000
LARGEST_REQUEST_BYTES = 64 << 20
_SETTLED = ("Stable", "Empty", "Dead")
"""Dead is also what Kafka calls a group that it never heard of."""


class PartitionLag(msgspec.Struct, frozen=True, kw_only=True):
    """How far the group is behind in one partition."""

    topic: str
    partition: int
    committed_offset: int
    end_offset: int
    oldest_waiting_ms: int | None
    """The record time of the first record that is not committed yet; None when nothing waits."""

    @property
    def records(self) -> int:
        """How many records wait."""
        return max(0, self.end_offset - self.committed_offset)


class Retention(NamedTuple):
    """For how long a topic keeps what arrives."""

    topic: str
    cleanup_policy: str
    at_most_ms: int | None
    """From a record's arrival until it is gone at the latest; None where nothing says that it ever is."""


class KafkaInspector:
    """Reads what Kafka holds. Every method raises `KafkaUnavailableError` when no broker answers in time."""

    def __init__(self, consumer: AIOKafkaConsumer, connection: KafkaConnection) -> None:
        self._consumer = consumer
        self._connection = connection

    async def topics(self) -> set[str]:
        """The names of all topics."""
        async with _within(READ_TIMEOUT_S):
            return set(await all_partitions(self._connection))

    async def missing_topics(self, names: Collection[str]) -> list[str]:
        """Those of these names that are no topic."""
        return sorted(set(names) - await self.topics())

    async def lag(self, group_id: str, feeds: Sequence[Feed]) -> list[PartitionLag]:
        """The group's lag in each partition of the feeds' topics."""
        topics = _carried(await self.topics(), feeds)
        async with _within(READ_TIMEOUT_S):
            partitions = await self._partitions(topics)
            first = await self._consumer.beginning_offsets(partitions)
            last = await self._consumer.end_offsets(partitions)
            committed = await self._committed(group_id)
        lags = []
        for tp in partitions:
            next_offset = max(committed.get(tp, 0), first[tp])
            waiting = await self.record(TopicPartition(*tp), next_offset) if next_offset < last[tp] else None
            lags.append(
                PartitionLag(
                    topic=tp.topic,
                    partition=tp.partition,
                    committed_offset=next_offset,
                    end_offset=last[tp],
                    oldest_waiting_ms=waiting.timestamp_ms if waiting else None,
                )
            )
        return lags

    async def ends(self, feeds: Sequence[Feed]) -> dict[TopicPartition, int]:
        """Of each partition of the feeds' topics that holds records now: the offset behind its last one."""
        topics = _carried(await self.topics(), feeds)
        async with _within(READ_TIMEOUT_S):
            partitions = await self._partitions(topics)
            first = await self._consumer.beginning_offsets(partitions)
            last = await self._consumer.end_offsets(partitions)
        return {TopicPartition(*tp): last[tp] for tp in partitions if last[tp] > first[tp]}

    async def behind(self, group_id: str, ends: Mapping[TopicPartition, int]) -> list[TopicPartition]:
        """Those of these partitions that the group has not committed up to there."""
        async with _within(READ_TIMEOUT_S):
            committed = await self._committed(group_id)
        return [tp for tp, end in ends.items() if committed.get(ClientTopicPartition(*tp), 0) < end]

    async def sayings(self, group_id: str) -> list[bytes] | None:
        """What each member of the group says of itself. None while members come or go: not all are known then."""
        async with _within(READ_TIMEOUT_S), admin_client(self._connection) as admin:
            error, _, state, _, _, members, *_ = (await admin.describe_consumer_groups([group_id]))[0].groups[0]
        if error:
            raise KafkaUnavailableError(for_code(error).__name__)
        if state not in _SETTLED:
            return None
        return [saying_of(metadata) for _, _, _, metadata, _ in members]

    async def retention(self, feeds: Sequence[Feed], *others: str) -> list[Retention]:
        """For how long the topics of the feeds and these others keep records, by name, of those that exist."""
        topics = await self.topics()
        known = sorted({*_carried(topics, feeds), *topics.intersection(others)})
        async with _within(READ_TIMEOUT_S):
            settings = await topic_settings(self._connection, known)
        return [_retention(topic, settings[topic]) for topic in known]

    async def record(self, tp: TopicPartition, offset: int) -> Record | None:
        """The record at this offset, or the next one that the topic still holds; None behind the end."""
        async with _within(READ_TIMEOUT_S):
            partition = ClientTopicPartition(*tp)
            if partition not in await self._partitions([tp.topic]):
                return None
            ends = await self._consumer.end_offsets([partition])
            if offset >= ends[partition]:
                return None
            self._consumer.assign([partition])
            self._consumer.seek(partition, offset)
            found = await self._consumer.getone(partition)
            return Record(
                found.topic, found.partition, found.offset, found.timestamp, found.key, found.value, found.headers
            )

    async def records(self, topic: str) -> AsyncIterator[Record]:
        """Every record that the topic holds now, partition by partition."""
        async with _within(READ_TIMEOUT_S):
            partitions = await self._partitions([topic])
            first = await self._consumer.beginning_offsets(partitions)
            last = await self._consumer.end_offsets(partitions)
        for tp in partitions:
            self._consumer.assign([tp])
            self._consumer.seek(tp, first[tp])
            position = first[tp]
            while position < last[tp]:
                async with _within(READ_TIMEOUT_S):
                    found = await self._consumer.getmany(tp, timeout_ms=1_000, max_records=READ_AHEAD_RECORDS)
                    position = await self._consumer.position(tp)
                for record in found.get(tp, ()):
                    if record.offset < last[tp]:
                        yield Record(
                            record.topic,
                            record.partition,
                            record.offset,
                            record.timestamp,
                            record.key,
                            record.value,
                            record.headers,
                        )

    async def _partitions(self, topics: Iterable[str]) -> list[ClientTopicPartition]:
        by_topic = await all_partitions(self._connection)
        return [ClientTopicPartition(*tp) for topic in topics for tp in by_topic.get(topic, ())]

    async def _committed(self, group_id: str) -> dict[ClientTopicPartition, int]:
        async with admin_client(self._connection) as admin:
            offsets = await admin.list_consumer_group_offsets(group_id)
        return {tp: found.offset for tp, found in offsets.items()}


def _carried(topics: Iterable[str], feeds: Sequence[Feed]) -> list[str]:
    return sorted(topic for topic in topics if any(feed.carries(topic) for feed in feeds))


def _retention(topic: str, settings: Mapping[str, str]) -> Retention:
    # A record goes with its whole log segment: the retention counts from the newest record in it, and the segment takes
    # in records for `segment.ms`. Compaction alone never removes the last record of a key.
    policy, retention_ms = settings.get("cleanup.policy", ""), int(settings.get("retention.ms", -1))
    is_kept = "delete" not in policy or retention_ms < 0
    return Retention(topic, policy, None if is_kept else retention_ms + int(settings.get("segment.ms", 0)))


@asynccontextmanager
async def kafka_inspector(connection: KafkaConnection) -> AsyncIterator[KafkaInspector]:
    """An inspector on a connection of its own."""
    consumer = AIOKafkaConsumer(
        **connection.options(), group_id=None, enable_auto_commit=False, isolation_level="read_committed"
    )
    try:
        await _start(consumer, connection)
        yield KafkaInspector(consumer, connection)
    finally:
        await asyncio.wait_for(consumer.stop(), READ_TIMEOUT_S)


class Outgoing(msgspec.Struct, frozen=True):
    """A record to be published."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class KafkaPublisher:
    """Publishes records; `flush` returns when all of them are acknowledged by all in-sync replicas."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._acknowledged: list[asyncio.Future[object]] = []

    async def publish(self, record: Outgoing) -> None:
        """Hands the record over to be sent; errors come out of `flush`."""
        async with _within(READ_TIMEOUT_S):
            self._acknowledged.append(
                await self._producer.send(record.topic, record.value, any_key(record.key), headers=list(record.headers))
            )
        if len(self._acknowledged) >= READ_AHEAD_RECORDS:
            await self.flush()

    async def flush(self) -> None:
        """Returns when everything published so far is safe."""
        waiting, self._acknowledged = self._acknowledged, []
        async with _within(READ_TIMEOUT_S):
            await asyncio.gather(*waiting)


@asynccontextmanager
async def kafka_publisher(connection: KafkaConnection) -> AsyncIterator[KafkaPublisher]:
    """A publisher on a connection of its own; leaving it without an error means that all is acknowledged."""
    producer = AIOKafkaProducer(
        **connection.options(),
        acks="all",
        enable_idempotence=True,
        linger_ms=20,
        max_batch_size=1 << 18,
        max_request_size=LARGEST_REQUEST_BYTES,
        key_serializer=key_as_it_was,
    )
    try:
        await _start(producer, connection)
        publisher = KafkaPublisher(producer)
        yield publisher
        await publisher.flush()
    finally:
        await asyncio.wait_for(producer.stop(), READ_TIMEOUT_S)


async def _start(client: AIOKafkaConsumer | AIOKafkaProducer, connection: KafkaConnection) -> None:
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            await client.start()
    except (TimeoutError, KafkaError) as exc:
        raise KafkaUnavailableError(await why_unreachable(connection, exc)) from exc


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except (TimeoutError, KafkaError) as exc:
        raise KafkaUnavailableError(type(exc).__name__) from exc
