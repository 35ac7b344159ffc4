"""One campaign: records flow, things break, all settles, and what is in the store is compared with the oracle."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.processes import HOST, free_ports
from deploy.local.servers import create_topics, start_kafka, start_postgres
from stores.model import Position
from stores.postgres.migrating import migrate
from tests.faults.faults import FAULTS, SESSION_TIMEOUT_S, Fault, Ground
from tests.faults.oracle import Oracle, Stored
from tests.faults.proxy import Proxy
from tests.faults.stream import HEADER, Made, Meaning, Stream, Topics
from tests.faults.workers import Workers

TOPICS = Topics("faults.webhook", "faults.amplitude", "faults.segment", "faults.any")
DEAD_LETTERS = "faults.dead-letters"
GROUP = "faults"
WORKERS = 2
PUBLISH_PAUSE_S = 0.05
PUBLISH_RECORDS = 10
RECOVERY_S = 120.0
GAP_S = 1.0


class Outcome(NamedTuple):
    """What a fault did: how long until everything published before its end was stored and committed."""

    names: tuple[str, ...]
    recovered_s: float | None


class Report(NamedTuple):
    """What a campaign showed. It is good when `wrong` is empty."""

    seed: int
    outcomes: list[Outcome]
    records: int
    memberships: int
    dead_letters: int
    wrong: list[str]
    open_files: tuple[int, int]
    memory_mib: tuple[float, float]


async def run(seed: int, *, seconds: float, folder: Path, only: frozenset[str] = frozenset()) -> Report:
    """Runs one campaign of about so many seconds, on servers of its own."""
    randomness = random.Random(seed)
    async with AsyncExitStack() as stack:
        kafka = stack.enter_context(await asyncio.to_thread(start_kafka, folder / "kafka"))
        postgres = stack.enter_context(await asyncio.to_thread(start_postgres, folder / "postgres"))
        await create_topics(kafka.bootstrap_servers, TOPICS.partitions() | {DEAD_LETTERS: 1})
        await migrate(postgres.dsn)
        kafka_proxy = await stack.enter_async_context(Proxy(kafka.proxied_port, kafka.behind_proxy_port))
        (postgres_port,) = free_ports(1)
        postgres_proxy = await stack.enter_async_context(Proxy(postgres_port, postgres.port))
        config = folder / "cohort-sync.yaml"
        dsn = postgres.dsn.replace(f":{postgres.port}/", f":{postgres_port}/")
        config.write_text(yaml.safe_dump(_settings(f"{HOST}:{kafka.proxied_port}", dsn)))
        workers = Workers(config, folder, count=WORKERS)
        stack.callback(workers.kill_all)
        ground = Ground(kafka, postgres, kafka_proxy, postgres_proxy, workers, DEAD_LETTERS, randomness)
        campaign = _Campaign(seed, ground, seconds=seconds, only=only)
        return await campaign.run()


class _Campaign:
    def __init__(self, seed: int, ground: Ground, *, seconds: float, only: frozenset[str]) -> None:
        self._seed = seed
        self._ground = ground
        self._seconds = seconds
        self._faults = [fault for fault in FAULTS if not only or fault.name in only]
        self._meanings: dict[int, Meaning] = {}
        self._outcomes: list[Outcome] = []
        self._wrong: list[str] = []

    async def run(self) -> Report:
        watching = asyncio.create_task(self._ground.workers.watch())
        publishing = asyncio.create_task(self._publish())
        try:
            await self._recovered()  # the start
            before = self._ground.workers.resources()
            await self._break_things()
            publishing.cancel()
            with suppress(asyncio.CancelledError):
                await publishing
            settled_s = await self._recovered()
            if settled_s is None:
                self._wrong.append(f"not settled after {RECOVERY_S:.0f} s")
            after = self._ground.workers.resources()
            await self._compare()
        finally:
            for task in (watching, publishing):
                task.cancel()
        self._wrong += self._ground.workers.complaints
        counts = await self._counts()
        return Report(
            self._seed,
            self._outcomes,
            *counts,
            self._wrong,
            (max(files for files, _ in before), max(files for files, _ in after)),
            (max(rss for _, rss in before) / 2**20, max(rss for _, rss in after) / 2**20),
        )

    async def _break_things(self) -> None:
        """A shuffled round of all faults, again and again; one of four comes with another at the same time."""
        deadline, roll = time.monotonic() + self._seconds, self._ground.random
        waiting: list[Fault] = []
        while time.monotonic() < deadline:
            together = 2 if roll.random() < 0.25 and len(self._faults) > 1 else 1
            if len(waiting) < together:
                waiting = roll.sample(self._faults, len(self._faults))
            chosen, waiting = waiting[:together], waiting[together:]
            await asyncio.gather(*(each.run(self._ground) for each in chosen))
            recovered_s = await self._recovered()
            self._outcomes.append(Outcome(tuple(each.name for each in chosen), recovered_s))
            await self._nothing_committed_is_missing()
            await asyncio.sleep(GAP_S)

    async def _publish(self) -> None:
        """Publishes without end, whatever the broker does: nothing of it may be lost on this side."""
        stream = iter(Stream(self._seed, TOPICS, start_ms=int(time.time() * 1000) - 60_000))
        producer = AIOKafkaProducer(
            bootstrap_servers=self._ground.kafka.bootstrap_servers,
            enable_idempotence=True,
            max_request_size=4 << 20,
            key_serializer=lambda key: key or None,
        )
        await producer.start()
        try:
            while True:
                for made in (next(stream) for _ in range(PUBLISH_RECORDS)):
                    self._meanings[made.number] = made.meaning
                    await self._send(producer, made)
                await asyncio.sleep(PUBLISH_PAUSE_S)
        finally:
            await asyncio.wait_for(producer.stop(), 30)

    async def _send(self, producer: AIOKafkaProducer, made: Made) -> None:
        await producer.send(
            made.topic,
            made.value,
            key=b"",
            partition=made.partition,
            timestamp_ms=made.timestamp_ms,
            headers=list(made.headers),
        )

    async def _recovered(self) -> float | None:
        """How long until what stands in the topics now is stored and committed; None if it takes too long."""
        started = time.monotonic()
        ends: dict[TopicPartition, int] | None = None
        while time.monotonic() - started < RECOVERY_S:
            with suppress(Exception):
                ends = ends or await self._ends()
                committed = await self._committed()
                if all(committed.get(tp, 0) >= end for tp, end in ends.items()):
                    return time.monotonic() - started
            await asyncio.sleep(0.2)
        return None

    async def _ends(self) -> dict[TopicPartition, int]:
        async with self._consumer() as consumer:
            partitions = [
                TopicPartition(name, number) for name, count in TOPICS.partitions().items() for number in range(count)
            ]
            ends: dict[TopicPartition, int] = await asyncio.wait_for(consumer.end_offsets(partitions), 5)
            return ends

    async def _committed(self) -> dict[TopicPartition, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._ground.kafka.bootstrap_servers, request_timeout_ms=5_000)
        try:
            async with asyncio.timeout(5):
                await admin.start()
                offsets = await admin.list_consumer_group_offsets(GROUP)
            return {tp: found.offset for tp, found in offsets.items()}
        finally:
            await admin.close()

    async def _nothing_committed_is_missing(self) -> None:
        """Of every record below a committed offset, each member is stored, whatever version it has by now."""
        committed = await self._committed()
        stored = set(await self._memberships())
        for topic, partition, offset, _, meaning in await self._log():
            if offset < committed.get(TopicPartition(topic, partition), 0):
                missing = {(said.segment, said.context_key) for said in meaning.said} - stored
                if missing:
                    self._wrong.append(
                        f"{topic}:{partition}:{offset} is committed, and {len(missing)} of it not stored"
                    )

    async def _compare(self) -> None:
        sql = await asyncpg.connect(self._ground.postgres.dsn)
        topic_ids = {name: number for number, name in await sql.fetch("SELECT id, name FROM topic")}
        oracle = Oracle(topic_ids)
        for topic, partition, offset, timestamp_ms, meaning in await self._log():
            oracle.take(topic, partition, offset, timestamp_ms, meaning)
        expected, found = oracle.members(), await self._memberships()
        for place in sorted(expected.keys() | found.keys()):
            if expected.get(place) != found.get(place):
                self._wrong.append(f"{place}: stored {found.get(place)}, expected {expected.get(place)}")
        await self._compare_counts(sql, expected)
        await sql.close()
        await self._compare_dead_letters(oracle)

    async def _compare_counts(self, sql: asyncpg.Connection, expected: dict[tuple[str, str], Stored]) -> None:
        counts = Counter(segment for (segment, _), stored in expected.items() if stored.included)
        for _ in range(50):  # the sweeps may still be at it
            found = dict(await sql.fetch("SELECT key, included_count FROM segment WHERE included_count > 0"))
            if found == counts:
                return
            await asyncio.sleep(0.2)
        self._wrong.append(f"included_count: stored {found}, expected {dict(counts)}")

    async def _compare_dead_letters(self, oracle: Oracle) -> None:
        letters: set[tuple[str, int, int, str]] = set()
        async for record in self._records({DEAD_LETTERS: 1}):
            said = {name: (value or b"").decode() for name, value in record.headers}
            place = said["dead-letter-topic"], int(said["dead-letter-partition"]), int(said["dead-letter-offset"])
            letters.add((*place, said["dead-letter-reason"]))
        if letters != oracle.dead:
            lost, extra = oracle.dead - letters, letters - oracle.dead
            self._wrong.append(f"dead letters: {len(lost)} lost, {len(extra)} too many: {sorted(lost | extra)[:5]}")

    async def _memberships(self) -> dict[tuple[str, str], Stored]:
        sql = await asyncpg.connect(self._ground.postgres.dsn)
        rows = await sql.fetch(
            "SELECT key, context_key, included, event_time, position FROM membership_in_force "
            "JOIN segment ON id = segment_id"
        )
        await sql.close()
        return {
            (row["key"], row["context_key"]): Stored(
                row["included"], (row["event_time"], *Position.unpack(row["position"]))
            )
            for row in rows
        }

    async def _log(self) -> list[tuple[str, int, int, int, Meaning]]:
        """Everything that stands in the topics, with what it was made from."""
        found = []
        async for record in self._records(TOPICS.partitions()):
            number = int(dict(record.headers)[HEADER])
            found.append((record.topic, record.partition, record.offset, record.timestamp, self._meanings[number]))
        return found

    async def _records(self, topics: dict[str, int]) -> AsyncIterator[Any]:
        async with self._consumer() as consumer:
            partitions = [TopicPartition(name, number) for name, count in topics.items() for number in range(count)]
            ends = await consumer.end_offsets(partitions)
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
                for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                    for record in records:
                        if record.offset < ends[tp]:
                            yield record

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._ground.kafka.bootstrap_servers, enable_auto_commit=False)
        try:
            await asyncio.wait_for(consumer.start(), 10)
            yield consumer
        finally:
            await asyncio.wait_for(consumer.stop(), 10)

    async def _counts(self) -> tuple[int, int, int]:
        letters = [record async for record in self._records({DEAD_LETTERS: 1})]
        return len(await self._log()), len(await self._memberships()), len(letters)


def _settings(bootstrap_servers: str, dsn: str) -> dict[str, Any]:
    def feed(name: str, topic: str) -> dict[str, Any]:
        return {"name": name, "topics": [topic], "format": name, "environment": "production"}

    return {
        "kafka": {
            "bootstrap_servers": bootstrap_servers,
            "group_id": GROUP,
            "dead_letter_topic": DEAD_LETTERS,
            "session_timeout_ms": int(SESSION_TIMEOUT_S * 1000),
        },
        "postgres": {"dsn": dsn},
        "http": {"port": 0},
        "batch": {"max_wait_s": 0.2},
        "feeds": [
            feed("amplitude-webhook", TOPICS.webhook),
            feed("amplitude", TOPICS.amplitude),
            feed("segment", TOPICS.segment),
            feed("header", TOPICS.any),
        ],
    }
