"""What the pipeline relies on of the Kafka client, on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from aiokafka import TopicPartition as ClientTopicPartition
from aiokafka.errors import RecordTooLargeError

from consumers.connection import KafkaConnection
from consumers.feeds import Feed
from consumers.kafka import KafkaConsumer
from consumers.record import Record, TopicPartition
from tests.worker_process import Bench, eventually


class Listener:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.assigned: list[TopicPartition] = []
        self.revoked = 0

    async def partitions_revoked(self) -> None:
        self.revoked += 1

    def partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned = list(partitions)


def a_consumer(bench: Bench, *, pattern: str | None = None) -> KafkaConsumer:
    topics = () if pattern else (bench.webhook_topic,)
    feed = Feed(name="webhook", format="amplitude-webhook", topics=topics, topic_pattern=pattern)
    connection = KafkaConnection(bootstrap_servers=bench.bootstrap_servers)
    return KafkaConsumer(connection, group_id=bench.group_id, session_timeout_ms=6000, feeds=[feed])


async def polled(consumer: KafkaConsumer, count: int) -> list[Record]:
    """So many records, or whatever comes within a while."""
    records: list[Record] = []

    async def enough() -> bool:
        records.extend(await consumer.poll(max_records=100, timeout_s=0.2))
        return len(records) >= count

    await eventually(enough)
    return records


async def until_records_wait(consumer: KafkaConsumer) -> None:
    """Lets the client hand out records that `poll` does not return yet."""

    async def waiting() -> bool:
        consumer._getting = asyncio.create_task(consumer._get(100))  # what `poll` does, but does not look in
        _, records = await consumer._getting
        return bool(records)

    await eventually(waiting)


@pytest.fixture
async def consumer(bench: Bench) -> AsyncIterator[KafkaConsumer]:
    own = a_consumer(bench)
    await own.start(Listener())
    yield own
    await own.stop()


async def test_no_position_is_told_while_records_wait_that_nobody_was_given(
    bench: Bench, consumer: KafkaConsumer
) -> None:
    await bench.publish(bench.webhook_topic, b"1", b"2", b"3", partition=0)
    first = TopicPartition(bench.webhook_topic, 0)

    await until_records_wait(consumer)
    assert consumer.positions().get(first, 0) == 0, "committing this would lose the three records"

    assert len(await polled(consumer, 3)) == 3
    assert consumer.positions()[first] == 3


async def test_no_position_is_told_while_partitions_are_given_out_anew(bench: Bench, consumer: KafkaConsumer) -> None:
    await bench.publish(bench.webhook_topic, b"1", b"2", b"3", partition=0)
    await polled(consumer, 3)
    first = TopicPartition(bench.webhook_topic, 0)
    assert consumer.positions()[first] == 3

    consumer._client._subscription.begin_reassignment()  # as the client does before it tells of the rebalance

    assert consumer.positions() == {}, "what was read before it was dropped, and committing this would lose it"


async def test_an_error_from_before_a_rebalance_moves_nothing_after_it(bench: Bench, consumer: KafkaConsumer) -> None:
    await bench.publish(bench.webhook_topic, b"0", b"1", b"2", b"3", partition=0)
    await polled(consumer, 4)
    partition = ClientTopicPartition(bench.webhook_topic, 0)
    consumer._client.seek(partition, 0)  # a rebalance: all of it is to be read again

    consumer._read_again_with_larger_fetches(RecordTooLargeError("%s=%s is larger than %s", partition, 3, 1 << 20))

    assert [record.offset for record in await polled(consumer, 4)] == [0, 1, 2, 3]


async def test_a_record_that_was_too_large_to_fetch_is_read_again(bench: Bench, consumer: KafkaConsumer) -> None:
    await bench.publish(bench.webhook_topic, b"0", b"1", partition=0)
    await polled(consumer, 2)
    partition = ClientTopicPartition(bench.webhook_topic, 0)
    consumer._client.seek(partition, 1)  # the client stands behind the record at 0, which it could not deliver

    consumer._read_again_with_larger_fetches(RecordTooLargeError("%s=%s is larger than %s", partition, 0, 1 << 20))

    assert [record.offset for record in await polled(consumer, 2)] == [0, 1]


async def test_a_member_knows_whether_others_read_too(bench: Bench, consumer: KafkaConsumer) -> None:
    other = a_consumer(bench)

    async def share(partitions: int) -> bool:
        await asyncio.gather(*(each.poll(max_records=1, timeout_s=0.2) for each in members))
        return [len(each.assignment()) for each in members] == [partitions] * len(members)

    members = [consumer]
    await eventually(lambda: share(4))
    assert consumer.reads_everything()

    await other.start(Listener())
    members = [consumer, other]
    await eventually(lambda: share(2))
    assert not consumer.reads_everything()
    await other.stop()


async def test_a_paused_partition_stays_paused_through_a_rebalance(bench: Bench, consumer: KafkaConsumer) -> None:
    async def assigned() -> bool:
        await consumer.poll(max_records=1, timeout_s=0.2)
        return len(consumer.assignment()) == 4

    await eventually(assigned)
    paused = TopicPartition(bench.webhook_topic, 0)
    consumer.pause([paused], "dead_letters")
    generation = consumer.generation

    other = a_consumer(bench)
    await other.start(Listener())
    await other.stop()

    async def rebalanced() -> bool:
        await consumer.poll(max_records=1, timeout_s=0.2)
        return consumer.generation > generation and len(consumer.assignment()) == 4

    await eventually(rebalanced)
    for partition in range(4):
        await bench.publish(bench.webhook_topic, b"x", partition=partition)
    records = await polled(consumer, 3)
    records += await consumer.poll(max_records=10, timeout_s=1)
    assert {record.partition for record in records} == {1, 2, 3}

    consumer.resume("dead_letters")
    assert [record.partition for record in await polled(consumer, 1)] == [0]


async def test_records_from_before_a_rebalance_are_not_handed_out_after_it(
    bench: Bench, consumer: KafkaConsumer
) -> None:
    await bench.publish(bench.webhook_topic, b"1", partition=0)

    await until_records_wait(consumer)
    consumer.generation += 1  # as a rebalance does

    assert await consumer.poll(max_records=1, timeout_s=0) == []


async def test_topics_are_found_by_pattern(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, b"x", partition=3)
    consumer = a_consumer(bench, pattern=bench.webhook_topic[:-1] + ".")
    await consumer.start(Listener())
    try:
        assert [record.topic for record in await polled(consumer, 1)] == [bench.webhook_topic]
    finally:
        await consumer.stop()


async def test_a_commit_of_what_is_not_ours_is_refused_and_survived(bench: Bench, consumer: KafkaConsumer) -> None:
    await bench.publish(bench.webhook_topic, b"x", partition=0)
    await polled(consumer, 1)

    assert await consumer.commit({TopicPartition(bench.webhook_topic, 0): 1})
    assert not await consumer.commit({TopicPartition("elsewhere", 0): 1})
    assert (await bench.committed(bench.webhook_topic))[0] == 1
