"""Faults of the broker and of its topics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from consumers.dead_letter import DEFAULT_TOPIC_LIMIT_BYTES
from deploy.local.servers import create_topics
from tests.faults.ground import INSISTED_S, Ground, disk_fault, fault, hold, insisting
from tests.worker_process import eventually


@fault
async def broker_killed(ground: Ground) -> None:
    """And started again."""
    async with ground.kafka_server:
        ground.kafka.kill()
        await hold(ground)
        await asyncio.to_thread(ground.kafka.restart)


@fault
async def broker_frozen(ground: Ground) -> None:
    """Its connections stay open, and nothing answers."""
    async with ground.kafka_server:
        ground.kafka.suspend()
        await hold(ground)
        ground.kafka.resume()


@disk_fault
async def broker_disk_full(ground: Ground) -> None:
    """No record and no dead letter can be written; a broker ends when it can't write its log."""
    async with ground.kafka_server:
        ground.kafka_disk.fill()
        await hold(ground)
        ground.kafka_disk.free()
        await asyncio.to_thread(ground.kafka.restart)


@fault
async def dead_letter_topic_unwritable(ground: Ground) -> None:
    """It takes nothing, whatever is sent."""
    async with unwritable_dead_letters(ground):
        await hold(ground)


@fault
async def dead_letter_topic_missing(ground: Ground) -> None:
    """Somebody deletes it, and makes it again. What stood in it is gone with it, which is not our loss."""
    async with unwritable_dead_letters(ground):
        await asyncio.sleep(1)  # nothing is on its way any more
        await insisting(ground.topics.put_letters_aside)
        name = ground.topics.dead_letter_topic
        await insisting(lambda: _delete_topic(ground, name))
        await hold(ground)
        await insisting(lambda: create_topics(ground.kafka.bootstrap_servers, {name: 1}))


@fault
async def one_topic_stuck(ground: Ground) -> None:
    """Somebody's transaction stays open, so that nothing behind it can be read. All other topics go on."""
    stuck = ground.random.choice(sorted(ground.topics.partitions))
    producer = AIOKafkaProducer(
        bootstrap_servers=ground.kafka.bootstrap_servers,
        transactional_id=f"stuck-{ground.random.random()}",
        transaction_timeout_ms=20_000,
    )
    with suppress(KafkaError, OSError, TimeoutError):  # another fault may be at the broker: then it ends by its timeout
        async with asyncio.timeout(INSISTED_S):
            await producer.start()
            await producer.begin_transaction()
            for number in range(ground.topics.partitions[stuck]):
                await producer.send_and_wait(stuck, b"never committed", partition=number)
            await _others_go_on(ground, stuck)
            await _is_stuck(ground, stuck)
            await producer.abort_transaction()
    with suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.stop(), 10)


@asynccontextmanager
async def unwritable_dead_letters(ground: Ground) -> AsyncIterator[None]:
    """No dead letter is acknowledged meanwhile: the topic takes no record of any size.

    A larger `min.insync.replicas` would not do: Kafka takes no more of them than a partition has replicas.
    """
    async with ground.dead_letter_topic:
        await _limit_dead_letters(ground, 1)
        if await _takes_a_letter(ground):
            ground.wrong.append("the dead letter topic could be written all the same")
        yield
        await _limit_dead_letters(ground, DEFAULT_TOPIC_LIMIT_BYTES)


async def _takes_a_letter(ground: Ground) -> bool:
    producer = AIOKafkaProducer(bootstrap_servers=ground.kafka.bootstrap_servers)
    await insisting(producer.start)
    try:
        await asyncio.wait_for(producer.send_and_wait(ground.topics.dead_letter_topic, b"none"), INSISTED_S)
    except (MessageSizeTooLargeError, KafkaTimeoutError, TimeoutError):
        return False
    else:
        return True
    finally:
        with suppress(KafkaError, OSError, TimeoutError):
            await asyncio.wait_for(producer.stop(), 10)


async def _others_go_on(ground: Ground, stuck: str) -> None:
    """What is published to the others now is committed while the one is stuck, once nothing else is broken."""
    ends = await insisting(ground.topics.ends)
    deadline = time.monotonic() + INSISTED_S
    behind = None
    while time.monotonic() < deadline:
        with suppress(KafkaError, OSError, TimeoutError):
            committed = await ground.topics.committed()
            behind = [tp for tp, end in ends.items() if tp.topic != stuck and committed.get(tp, 0) < end]
            if not behind:
                return
        await asyncio.sleep(0.2)
    ground.wrong.append(f"while {stuck} was stuck, {behind} did not go on")


async def _is_stuck(ground: Ground, topic: str) -> None:
    ends = await ground.topics.ends(isolation_level="read_uncommitted")
    committed = await ground.topics.committed()
    if not all(committed.get(tp, 0) < end for tp, end in ends.items() if tp.topic == topic):
        ground.wrong.append(f"{topic} was not stuck")


async def _limit_dead_letters(ground: Ground, limit_bytes: int) -> None:
    async def configure() -> None:
        async with _admin(ground) as admin:
            configs = {"max.message.bytes": str(limit_bytes)}
            topic = ground.topics.dead_letter_topic
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])

    await insisting(configure)


async def _delete_topic(ground: Ground, name: str) -> None:
    async with _admin(ground) as admin:
        if name in await admin.list_topics():
            await admin.delete_topics([name])

        async def is_gone() -> bool:
            return name not in await admin.list_topics()

        await eventually(is_gone)


@asynccontextmanager
async def _admin(ground: Ground) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=ground.kafka.bootstrap_servers, request_timeout_ms=5_000)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
