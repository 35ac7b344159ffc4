"""The ground that every contender runs on: servers of its own, and a database with a million memberships in it."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg
import psutil
from aiokafka import AIOKafkaProducer

from deploy.local.servers import Kafka, Postgres, create_topics, start_kafka, start_postgres
from deploy.local.valkey import Valkey
from stores.postgres.migrating import migrate

SEEDED = "seeded"
SEEDED_ROWS = 1_000_000
SEGMENTS = 10
MEMBERS_A_BATCH = 1_000
PARTITIONS = 4
COHORT = "bench{}"
HASH_OF_KEY = "encode(substr(sha256(key::bytea), 1, 16), 'hex')::uuid"
"""In SQL, what the store calls a context hash."""


class CpuSeconds(NamedTuple):
    """CPU time spent so far."""

    worker: float
    postgres: float
    kafka: float

    def since(self, start: CpuSeconds) -> CpuSeconds:
        return CpuSeconds(*(now - before for now, before in zip(self, start, strict=True)))

    def a_million(self, deltas: int) -> CpuSeconds:
        return CpuSeconds(*(seconds * 1_000_000 / deltas for seconds in self))


class Ground:
    """Kafka, PostgreSQL, and databases made from a template."""

    def __init__(self, kafka: Kafka, postgres: Postgres, valkey: Valkey) -> None:
        self.kafka = kafka
        self.postgres = postgres
        self.valkey = valkey
        self._admin: asyncpg.Connection

    def dsn(self, database: str) -> str:
        return f"{self.postgres.dsn.rsplit('/', 1)[0]}/{database}"

    async def prepare(self) -> None:
        """Makes the template: the schema, and a million memberships that nobody touches."""
        self._admin = await asyncpg.connect(self.postgres.dsn)
        await self._admin.execute(f"CREATE DATABASE {SEEDED}")
        await migrate(self.dsn(SEEDED))
        seeding = await asyncpg.connect(self.dsn(SEEDED))
        await seeding.execute(
            """
            INSERT INTO environment (key) VALUES ('production');
            INSERT INTO segment (environment_id, key, context_kind, integration, cohort_id, cohort_event_time,
                                 cohort_position, name)
            SELECT 1, 'amplitude-seed' || n, 'user', 'amplitude', 'seed' || n, 0, 0, 'seed'
            FROM generate_series(1, 10) AS n;
            """
        )
        await seeding.execute(
            f"""
            INSERT INTO membership
            SELECT 1 + n % {SEGMENTS}, {HASH_OF_KEY}, key, true, 0, 0, pg_current_xact_id()
            FROM generate_series(1, {SEEDED_ROWS}) AS n, LATERAL (SELECT 'seed' || n) AS named (key)
            """
        )
        await seeding.execute("VACUUM ANALYZE")
        await seeding.close()

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """The DSN of a fresh copy, with the disk quiet again after copying."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        await self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {SEEDED} STRATEGY FILE_COPY")
        await self._admin.execute("CHECKPOINT")
        try:
            yield self.dsn(name)
        finally:
            await self._admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def cpu(self, *workers: int) -> CpuSeconds:
        return CpuSeconds(
            worker=sum(cpu_s(pid) for pid in workers),
            postgres=cpu_s(self.postgres.pid, with_children=True),
            kafka=cpu_s(self.kafka.pid),
        )

    async def topic_of_webhooks(self, deltas: int) -> str:
        """A topic of hourly batches, a thousand members each, every member new."""
        members = ((number, numbered(number, MEMBERS_A_BATCH)) for number in range(deltas // MEMBERS_A_BATCH))
        return await self._topic(webhook(number, each) for number, each in members)

    async def topic_of_identifies(self, deltas: int) -> str:
        """A topic of identify calls, one member each, every member new."""
        return await self._topic(identify(number) for number in range(deltas))

    async def topic(self) -> str:
        """An empty topic."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        await create_topics(self.kafka.bootstrap_servers, {name: PARTITIONS})
        return name

    async def _topic(self, values: Iterable[bytes]) -> str:
        name = await self.topic()
        await self.fill(name, ((number % PARTITIONS, value) for number, value in enumerate(values)))
        return name

    async def fill(self, topic: str, values: Iterable[tuple[int, bytes]]) -> int:
        """Publishes these, each to its partition; returns how many there were."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.kafka.bootstrap_servers, linger_ms=20, max_batch_size=1 << 18
        )
        await producer.start()
        count = 0
        for partition, value in values:
            await producer.send(topic, value, partition=partition)
            count += 1
        await producer.stop()
        return count


@contextmanager
def ground() -> Iterator[Ground]:
    """Servers for one run of benchmarks."""
    with (
        tempfile.TemporaryDirectory(prefix="cohort-sync-bench-", ignore_cleanup_errors=True) as folder,
        start_kafka(Path(folder) / "kafka") as kafka,
        start_postgres(Path(folder) / "postgres") as postgres,
        Valkey(Path(folder) / "valkey").start() as valkey,
    ):
        yield Ground(kafka, postgres, valkey)


def numbered(batch: int, members: int) -> Iterator[str]:
    """The context keys of a batch, no two batches having one in common."""
    return (f"user-{number:012d}@example.com" for number in range(batch * members, (batch + 1) * members))


def webhook(number: int, members: Iterable[str], *, included: bool = True, computed_time: int = 1692206763) -> bytes:
    """A message of Amplitude's cohort webhook; its number says which of the cohorts it is about."""
    return json.dumps(
        {
            "cohort_name": "Bench",
            "cohort_id": COHORT.format(number % SEGMENTS),
            "in_cohort": included,
            "computed_time": str(computed_time),
            "message_id": f"{number}::enter::0",
            "users": [{"user_id": member} for member in members],
        }
    ).encode()


def identify(number: int) -> bytes:
    """An identify call of Segment's, one member."""
    return json.dumps(
        {
            "type": "identify",
            "userId": f"user-{number:012d}@example.com",
            "messageId": f"personas_{number}",
            "timestamp": "2026-11-20T08:00:00.000Z",
            "traits": {"first_time_shopper": True},
            "context": {
                "personas": {
                    "computation_class": "audience",
                    "computation_id": COHORT.format(number % SEGMENTS),
                    "computation_key": "first_time_shopper",
                    "namespace": "spa_1",
                    "space_id": "spa_1",
                }
            },
        }
    ).encode()


async def included(session: asyncpg.Connection) -> int:
    """How many of the benchmark's own members are committed."""
    count: int = await session.fetchval("SELECT coalesce(sum(included_count), 0)::bigint FROM segment")
    return count


async def timeline(dsn: str, until: int, *, every_s: float = 0.02) -> list[tuple[float, int]]:
    """When how many members were committed, until so many are."""
    session = await asyncpg.connect(dsn)
    seen: list[tuple[float, int]] = []
    while not seen or seen[-1][1] < until:
        seen.append((time.perf_counter(), await included(session)))
        await asyncio.sleep(every_s)
    await session.close()
    return seen


def rate_between(seen: list[tuple[float, int]], start: int, end: int) -> float:
    """Deltas a second from the moment that `start` were committed until `end` were."""
    first = next(point for point in seen if point[1] >= start)
    last = next(point for point in seen if point[1] >= end)
    return (last[1] - first[1]) / (last[0] - first[0])


def cpu_s(pid: int, *, with_children: bool = False) -> float:
    """What a process, and those that it has started, have used so far."""
    process = psutil.Process(pid)
    processes = [process, *process.children(recursive=True)] if with_children else [process]
    total = 0.0
    for each in processes:
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if each.pid == pid:
            total += times.children_user + times.children_system
    return total
