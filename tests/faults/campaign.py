"""One campaign: records flow, things break, all settles, and what is in the store is compared with the oracle."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import yaml
from aiokafka import AIOKafkaProducer, TopicPartition

from deploy.local.processes import HOST, free_ports
from deploy.local.servers import Postgres, create_topics, start_kafka
from stores.model import Position
from stores.postgres.migrating import migrate
from tests.faults.disk import Disk
from tests.faults.faults import FAULTS
from tests.faults.ground import SESSION_TIMEOUT_S, Fault, Ground
from tests.faults.oracle import Oracle, Stored
from tests.faults.proxy import Proxy
from tests.faults.stream import HEADER, Made, Meaning, Stream, Topics
from tests.faults.topic_reader import Letter, TopicReader
from tests.faults.workers import Resources, Workers

TOPICS = Topics("faults.webhook", "faults.amplitude", "faults.segment", "faults.any")
DEAD_LETTERS = "faults.dead-letters"
GROUP = "faults"
WORKERS = 2
PUBLISH_PAUSE_S = 0.05
PUBLISH_RECORDS = 10
GAP_S = 1.0
RECOVERY_S = 30.0
"""Promised: so long after a fault has ended, all that was published before that is stored and committed."""
PATIENCE_S = 120.0
MAY_GROW = Resources(open_files=20, tasks=10, memory_bytes=64 << 20)
"""By so much what a worker holds may differ between two moments. A leak in each fault would be far more."""


class Outcome(NamedTuple):
    """What a fault did: how long until everything published before its end was stored and committed."""

    names: tuple[str, ...]
    recovered_s: float | None


class Compared(NamedTuple):
    """How much was compared with the oracle, and how much of that was not as it says."""

    records: int
    deltas: int
    memberships: int
    dead_letters: int
    lost: int
    """Memberships, or dead letters, that are not there."""
    wrong: int
    """Memberships that are not as they should be, or not decided by the record that should; dead letters too many."""


class Report(NamedTuple):
    """What a campaign showed. It is good when `problems` is empty."""

    seed: int
    outcomes: list[Outcome]
    compared: Compared
    problems: list[str]
    before: Resources
    after: Resources
    left_out: list[str]
    """Faults that are not possible on this machine."""


async def run(seed: int, *, seconds: float, folder: Path, only: frozenset[str] = frozenset()) -> Report:
    """Runs one campaign of about so many seconds, on servers of its own."""
    async with AsyncExitStack() as stack:
        kafka_disk = stack.enter_context(Disk(folder / "kafka-disk"))
        postgres_disk = stack.enter_context(Disk(folder / "postgres-disk"))
        kafka = stack.enter_context(await asyncio.to_thread(start_kafka, kafka_disk.folder / "kafka"))
        postgres = stack.enter_context(await asyncio.to_thread(Postgres(postgres_disk.folder / "postgres").start))
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
        ground = Ground(
            kafka=kafka,
            postgres=postgres,
            kafka_disk=kafka_disk,
            postgres_disk=postgres_disk,
            kafka_proxy=kafka_proxy,
            postgres_proxy=postgres_proxy,
            workers=workers,
            topics=TopicReader(
                kafka.bootstrap_servers,
                partitions=TOPICS.partitions(),
                dead_letter_topic=DEAD_LETTERS,
                group_id=GROUP,
            ),
            folder=folder,
            random=random.Random(seed),
        )
        stack.callback(ground.stop_postgres)
        return await _Campaign(seed, ground, seconds=seconds, only=only).run()


class _Campaign:
    def __init__(self, seed: int, ground: Ground, *, seconds: float, only: frozenset[str]) -> None:
        self._seed = seed
        self._ground = ground
        self._topics = ground.topics
        self._seconds = seconds
        chosen = [fault for fault in FAULTS if not only or fault.name in only]
        self._faults = [fault for fault in chosen if _is_possible(fault, ground)]
        self._left_out = [fault.name for fault in chosen if not _is_possible(fault, ground)]
        self._meanings: dict[int, Meaning] = {}
        self._outcomes: list[Outcome] = []
        self._problems: list[str] = []

    async def run(self) -> Report:
        workers = self._ground.workers
        watching = asyncio.create_task(workers.watch())
        publishing = asyncio.create_task(self._publish())
        try:
            await self._recovered()  # the start
            before = await workers.resources()
            await self._break_things()
            publishing.cancel()
            with suppress(asyncio.CancelledError):
                await publishing
            if await self._recovered() is None:
                self._problems.append(f"not settled after {PATIENCE_S:.0f} s")
            after = await workers.resources()
            compared = await self._compare()
        finally:
            for task in (watching, publishing):
                task.cancel()
        for name, was, became, more in zip(Resources._fields, before, after, MAY_GROW, strict=True):
            if became > was + more:
                self._problems.append(f"{name} grew from {was} to {became}")
        problems = [*self._problems, *self._ground.wrong, *workers.complaints]
        return Report(self._seed, self._outcomes, compared, problems, before, after, self._left_out)

    async def _break_things(self) -> None:
        """A shuffled round of all faults, again and again; one of four comes with another at the same time."""
        deadline, roll = time.monotonic() + self._seconds, self._ground.random
        waiting: list[Fault] = []
        while time.monotonic() < deadline:
            together = 2 if roll.random() < 0.25 and len(self._faults) > 1 else 1
            if len(waiting) < together:
                waiting = roll.sample(self._faults, len(self._faults))
            chosen, waiting = waiting[:together], waiting[together:]
            names = tuple(each.name for each in chosen)
            await asyncio.gather(*(each.run(self._ground) for each in chosen))
            recovered_s = await self._recovered()
            self._outcomes.append(Outcome(names, recovered_s))
            if recovered_s is None or recovered_s > RECOVERY_S:
                took = f"after {recovered_s:.0f} s" if recovered_s else f"not within {PATIENCE_S:.0f} s"
                self._problems.append(f"{' + '.join(names)}: recovered {took}")
            await self._nothing_committed_is_missing()
            await asyncio.sleep(GAP_S)

    async def _publish(self) -> None:
        """Publishes without end, whatever the broker does. What the oracle takes in is what stands in the topics."""
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
        while time.monotonic() - started < PATIENCE_S:
            with suppress(Exception):
                ends = ends or await self._topics.ends()
                committed = await self._topics.committed()
                if all(committed.get(tp, 0) >= end for tp, end in ends.items()):
                    return time.monotonic() - started
            await asyncio.sleep(0.2)
        return None

    async def _nothing_committed_is_missing(self) -> None:
        """Of every record below a committed offset, each member is stored, whatever version it has by now."""
        committed = await self._topics.committed()
        stored = set(await self._memberships())
        for topic, partition, offset, _, meaning in await self._log():
            if offset < committed.get(TopicPartition(topic, partition), 0):
                missing = {(said.segment, said.context_key) for said in meaning.said} - stored
                if missing:
                    self._problems.append(
                        f"{topic}:{partition}:{offset} is committed, and {len(missing)} of it not stored"
                    )

    async def _compare(self) -> Compared:
        sql = await asyncpg.connect(self._ground.postgres.dsn)
        oracle = Oracle({name: number for number, name in await sql.fetch("SELECT id, name FROM topic")})
        log = await self._log()
        for topic, partition, offset, timestamp_ms, meaning in log:
            oracle.take(topic, partition, offset, timestamp_ms, meaning)
        expected, found = oracle.members(), await self._memberships()
        differing = [place for place in sorted(expected | found) if expected.get(place) != found.get(place)]
        for place in differing:
            self._problems.append(f"{place}: stored {found.get(place)}, expected {expected.get(place)}")
        await self._compare_counts(sql, expected)
        await sql.close()
        letters = set(await self._topics.letters())
        dead = {Letter(*each) for each in oracle.dead}
        if letters != dead:
            self._problems.append(
                f"dead letters: lost {sorted(dead - letters)[:5]}, extra {sorted(letters - dead)[:5]}"
            )
        lost = [place for place in differing if place not in found]
        return Compared(
            records=len(log),
            deltas=sum(len(meaning.said) for *_, meaning in log),
            memberships=len(expected),
            dead_letters=len(dead),
            lost=len(lost) + len(dead - letters),
            wrong=len(differing) - len(lost) + len(letters - dead),
        )

    async def _compare_counts(self, sql: asyncpg.Connection, expected: dict[tuple[str, str], Stored]) -> None:
        counts = Counter(segment for (segment, _), stored in expected.items() if stored.included)
        for _ in range(50):  # the sweeps may still be at it
            found = dict(await sql.fetch("SELECT key, included_count FROM segment WHERE included_count > 0"))
            if found == counts:
                return
            await asyncio.sleep(0.2)
        self._problems.append(f"included_count: stored {found}, expected {dict(counts)}")

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
        return [
            (
                record.topic,
                record.partition,
                record.offset,
                record.timestamp,
                self._meanings[int(dict(record.headers)[HEADER])],
            )
            async for record in self._topics.records()
        ]


def _is_possible(fault: Fault, ground: Ground) -> bool:
    return not fault.needs_disk or (ground.kafka_disk.can_be_full and ground.postgres_disk.can_be_full)


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
