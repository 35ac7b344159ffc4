"""Metering: one real worker with one database, and what each pass of deltas costs in CPU seconds and bytes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from redis import asyncio as redis

from stores.postgres.change_feed import ChangeFeed
from tests.benchmarks.contenders import Command, settings
from tests.benchmarks.ground import PARTITIONS, CpuSeconds, Ground, cpu_s
from tests.scale.costs import DeltaCost, Projected, Storage
from worker.health import Health
from worker.projector import until_caught_up

NAME = "bench"
STATISTICS_S = 12
"""A session that is idle reports what it logged after ten seconds."""
REPORTED = 0.95
"""This share of the log's growth: the rest is alignment and the headers of its pages."""


class Spent(NamedTuple):
    """CPU, WAL, and how many images of whole pages that WAL has."""

    cpu: CpuSeconds
    wal_bytes: int
    images: int

    def plus(self, other: Spent) -> Spent:
        cpu = CpuSeconds(*map(sum, zip(self.cpu, other.cpu, strict=True)))
        return Spent(cpu, self.wal_bytes + other.wal_bytes, self.images + other.images)

    def cost(self, deltas: int, image_bytes: float) -> DeltaCost:
        """Of one, without the images."""
        worker, postgres, kafka = self.cpu.a_million(deltas)
        return DeltaCost(worker, postgres, kafka, (self.wal_bytes - self.images * image_bytes) / deltas)


class Sizes(NamedTuple):
    """Bytes of the table and of its two indexes."""

    heap: int
    key_index: int
    feed_index: int

    def a_row(self, before: Sizes, rows: int) -> Storage:
        """Of the rows that were added since."""
        return Storage(*((now - then) / rows for now, then in zip(self, before, strict=True)))


class Meter:
    """Only the benchmark writes to this database, through a real worker. VACUUM runs when we say so, to be counted."""

    def __init__(self, ground: Ground, dsn: str, session: asyncpg.Connection) -> None:
        self._ground = ground
        self._dsn = dsn
        self._session = session
        self._group_id = f"bench-{uuid.uuid4().hex[:8]}"
        self._published = 0
        self._reported = (0, 0)
        self._worker: Command
        self.batches: str
        self.singles: str
        self.others: str

    async def start(self) -> None:
        """A worker with topics of batches, of single events, and of batches for another cell."""
        await self._session.execute("ALTER TABLE membership SET (autovacuum_enabled = off)")
        self.batches, self.singles, self.others = [await self._ground.topic() for _ in range(3)]
        feeds = [
            {"name": form, "topics": [topic], "format": form, "environment": "production"}
            for form, topic in (
                ("amplitude-webhook", self.batches),
                ("segment", self.singles),
                ("amplitude", self.others),
            )
        ]
        as_a_cell = {"environments": [{"key": "production"}], "unknown_environment": "skip"}
        self._worker = Command("run", settings=self._settings() | {"feeds": feeds} | as_a_cell)
        await self._worker.said("partitions_assigned")
        await asyncio.sleep(STATISTICS_S)

    def stop(self) -> None:
        self._worker.stop()

    async def publish(self, topic: str, values: Iterable[bytes]) -> None:
        """Returns when all of these are stored and committed."""
        numbered = ((number % PARTITIONS, value) for number, value in enumerate(values))
        self._published += await self._ground.fill(topic, numbered)
        admin = AIOKafkaAdminClient(bootstrap_servers=self._ground.kafka.bootstrap_servers)
        await admin.start()
        try:
            committed = 0
            while committed < self._published:
                await asyncio.sleep(0.05)
                offsets = await admin.list_consumer_group_offsets(self._group_id)
                committed = sum(each.offset for each in offsets.values())
        finally:
            await admin.close()

    async def spend(self, topic: str, values: Iterable[bytes]) -> Spent:
        """The same; what that cost, from their arrival in Kafka on."""
        ready = list(values)
        return await self._spent(lambda: self.publish(topic, ready))

    async def vacuum(self) -> None:
        await self._session.execute("VACUUM membership", timeout=600)

    async def spend_vacuum(self) -> Spent:
        """The same; what that cost."""
        return await self._spent(self.vacuum)

    async def checkpoint(self) -> None:
        await self._session.execute("CHECKPOINT", timeout=600)

    async def sizes(self) -> Sizes:
        return Sizes(
            *await self._session.fetchrow(
                "SELECT pg_table_size('membership'), pg_relation_size('membership_pkey'), "
                "pg_relation_size('membership_change')"
            )
        )

    @asynccontextmanager
    async def compressing(self) -> AsyncIterator[None]:
        """Images of pages are compressed meanwhile. Only the superuser of a server that is ours may ask for that."""
        dsn = self._dsn.replace("cohort_sync@", "postgres@")
        superuser = await asyncpg.connect(dsn)
        try:
            await _set_compression(superuser, "pglz")
            yield
        finally:
            await _set_compression(superuser, "off")
            await superuser.close()

    async def project(self, changes: int) -> tuple[float, Projected]:
        """Puts what Valkey lacks into it, by a real projector: by how many bytes it grew for a change, and the cost."""
        url = self._ground.valkey.url
        memory = await _memory(url)
        projector = Command("project", settings=self._projecting())
        try:
            await projector.said("projection_led")
            before, started = self._projection_cpu(projector), time.perf_counter()
            async with ChangeFeed(self._dsn) as feed:
                await until_caught_up(feed, Health(()), [NAME])
            taken_s = time.perf_counter() - started
            after = self._projection_cpu(projector)
        finally:
            projector.stop()
        projecting, postgres, server = (
            (now - then) * 1_000_000 / changes for now, then in zip(after, before, strict=True)
        )
        return (await _memory(url) - memory) / changes, Projected(projecting, postgres, server, changes / taken_s)

    async def rebuild(self, memberships: int) -> float:
        """Brings what stands in Valkey back to the truth: how many memberships a second."""
        started = time.perf_counter()
        rebuilding = Command("rebuild", NAME, settings=self._projecting())
        try:
            await rebuilding.ended()
            taken_s = time.perf_counter() - started
            await rebuilding.said("is whole")
        finally:
            rebuilding.stop()
        return memberships / taken_s

    def _projecting(self) -> dict[str, object]:
        target = {"name": NAME, "type": "redis", "environment": "production", "url": self._ground.valkey.url}
        return self._settings() | {"projections": [target]}

    def _projection_cpu(self, projector: Command) -> tuple[float, float, float]:
        cpu = self._ground.cpu(projector.pid)
        return cpu.worker, cpu.postgres, cpu_s(self._ground.valkey.pid)

    def _settings(self) -> dict[str, object]:
        return settings(self._ground, self._dsn, self.batches, "amplitude-webhook", group_id=self._group_id)

    async def _spent(self, work: Callable[[], Awaitable[object]]) -> Spent:
        images = await self._images()
        cpu, wal = self._ground.cpu(self._worker.pid), await self._wal_end()
        await work()
        spent = self._ground.cpu(self._worker.pid).since(cpu)
        return Spent(spent, await self._wal_end() - wal, await self._images() - images)

    async def _wal_end(self) -> int:
        return int(await self._session.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    async def _images(self) -> int:
        """So many were logged since the server was started, once the sessions have reported that."""
        end, (log_before, told_before) = await self._wal_end(), self._reported
        for _ in range(STATISTICS_S):
            told, images = await self._session.fetchrow("SELECT wal_bytes::bigint, wal_fpi FROM pg_stat_wal")
            if told - told_before >= REPORTED * (end - log_before):
                break
            await asyncio.sleep(1)
        self._reported = end, told
        return int(images)


@asynccontextmanager
async def metering(ground: Ground, dsn: str) -> AsyncIterator[Meter]:
    """A meter on this database."""
    session = await asyncpg.connect(dsn)
    meter = Meter(ground, dsn, session)
    await meter.start()
    try:
        yield meter
    finally:
        meter.stop()
        await session.close()
        async with redis.Redis.from_url(ground.valkey.url, socket_timeout=60) as client:
            await client.flushall()


async def _memory(url: str) -> int:
    async with redis.Redis.from_url(url) as client:
        return int((await client.info("memory"))["used_memory"])


async def _set_compression(superuser: asyncpg.Connection, value: str) -> None:
    await superuser.execute(f"ALTER SYSTEM SET wal_compression = {value}")
    await superuser.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(1)
