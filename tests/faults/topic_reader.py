"""What stands in the topics of a campaign, and what of it the group has committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

ASK_S = 5.0
READ_S = 10.0


class Letter(NamedTuple):
    """A dead letter: the record that it is of, and why."""

    topic: str
    partition: int
    offset: int
    reason: str


class TopicReader:
    """Reads past the proxy. Records of a transaction that was not committed are never seen."""

    def __init__(
        self, bootstrap_servers: str, *, partitions: Mapping[str, int], dead_letter_topic: str, group_id: str
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.partitions = partitions
        self.dead_letter_topic = dead_letter_topic
        self._group_id = group_id
        self._put_aside: list[Letter] = []

    async def ends(self, *, isolation_level: str = "read_committed") -> dict[TopicPartition, int]:
        """The next offset of every partition, before an open transaction or (read_uncommitted) with its records."""
        async with self._consumer(isolation_level) as consumer:
            ends: dict[TopicPartition, int] = await asyncio.wait_for(consumer.end_offsets(self._all()), ASK_S)
            return ends

    async def committed(self) -> dict[TopicPartition, int]:
        """The next offsets that the group has committed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=int(ASK_S * 1000))
        try:
            async with asyncio.timeout(ASK_S):
                await admin.start()
                offsets = await admin.list_consumer_group_offsets(self._group_id)
            return {tp: found.offset for tp, found in offsets.items()}
        finally:
            await admin.close()

    async def records(self) -> AsyncIterator[Any]:
        """Every record that stands in the topics now."""
        async for record in self._read(self._all()):
            yield record

    async def letters(self) -> list[Letter]:
        """Every dead letter there ever was."""
        return self._put_aside + await self._letters()

    async def put_letters_aside(self) -> None:
        """Remembers them, since their topic is about to go. Nobody may write there meanwhile."""
        self._put_aside += await self._letters()

    async def _letters(self) -> list[Letter]:
        letters = []
        async for record in self._read([TopicPartition(self.dead_letter_topic, 0)]):
            said = {name.removeprefix("dead-letter-"): (value or b"").decode() for name, value in record.headers}
            letters.append(Letter(said["topic"], int(said["partition"]), int(said["offset"]), said["reason"]))
        return letters

    def _all(self) -> list[TopicPartition]:
        return [TopicPartition(name, number) for name, count in self.partitions.items() for number in range(count)]

    async def _read(self, partitions: list[TopicPartition]) -> AsyncIterator[Any]:
        async with self._consumer() as consumer:
            ends = await consumer.end_offsets(partitions)
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
                for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                    for record in records:
                        if record.offset < ends[tp]:
                            yield record

    @asynccontextmanager
    async def _consumer(self, isolation_level: str = "read_committed") -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers, enable_auto_commit=False, isolation_level=isolation_level
        )
        try:
            await asyncio.wait_for(consumer.start(), READ_S)
            yield consumer
        finally:
            await asyncio.wait_for(consumer.stop(), READ_S)
