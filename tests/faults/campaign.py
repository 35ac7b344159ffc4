"""One campaign: records flow, things break, all settles, and what is in the store is compared with the oracle."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import asyncpg
from aiokafka import TopicPartition

from stores.model import Position
from stores.postgres.change_feed import ChangeFeed
from stores.redis.target import RedisTarget
from stores.target import Reference, context_reference
from tests.faults.deployment import PROJECTION, TOPICS, deployed
from tests.faults.faults import FAULTS
from tests.faults.ground import Fault, Ground
from tests.faults.oracle import Oracle, Stored
from tests.faults.publisher import Publisher
from tests.faults.stream import HEADER, Meaning, Stream
from tests.faults.topic_reader import Letter
from tests.faults.workers import Resources
from worker.health import Health
from worker.projector import until_caught_up

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
    projected: int
    """Memberships that stand in Valkey."""
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


async def run(
    seed: int,
    *,
    seconds: float,
    folder: Path,
    only: frozenset[str] = frozenset(),
    tell: Callable[[Outcome], None] = lambda _: None,
) -> Report:
    """Runs one campaign of about so many seconds, on servers of its own, and tells of each outcome when it is there."""
    async with deployed(folder, random.Random(seed)) as ground:
        return await _Campaign(seed, ground, seconds=seconds, only=only, tell=tell).run()


class _Campaign:
    def __init__(
        self, seed: int, ground: Ground, *, seconds: float, only: frozenset[str], tell: Callable[[Outcome], None]
    ) -> None:
        self._seed = seed
        self._ground = ground
        self._topics = ground.topics
        self._seconds = seconds
        self._tell = tell
        chosen = [fault for fault in FAULTS if not only or fault.name in only]
        self._faults = [fault for fault in chosen if _is_possible(fault, ground)]
        self._left_out = [fault.name for fault in chosen if not _is_possible(fault, ground)]
        self._meanings: dict[int, Meaning] = {}
        self._outcomes: list[Outcome] = []
        self._problems: list[str] = []

    async def run(self) -> Report:
        workers = self._ground.workers
        watching = [asyncio.create_task(pods.watch()) for pods in (workers, self._ground.projectors)]
        publishing = asyncio.create_task(self._publish())
        try:
            await self._recovered()  # the start
            before = await self._resources()
            await self._break_things()
            publishing.cancel()
            with suppress(asyncio.CancelledError):
                await publishing
            if await self._recovered() is None:
                self._problems.append(f"not settled after {PATIENCE_S:.0f} s")
            after = await self._resources()
            compared = await self._compare()
        finally:
            for task in (*watching, publishing):
                task.cancel()
        for name, was, became, more in zip(Resources._fields, before, after, MAY_GROW, strict=True):
            if became > was + more:
                self._problems.append(f"{name} grew from {was} to {became}")
        problems = [*self._problems, *self._ground.wrong, *workers.complaints, *self._ground.projectors.complaints]
        return Report(self._seed, self._outcomes, compared, problems, before, after, self._left_out)

    async def _resources(self) -> Resources:
        """The most that any of the processes holds now."""
        held = [await pods.resources() for pods in (self._ground.workers, self._ground.projectors)]
        return Resources(*map(max, zip(*held, strict=True)))

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
            self._tell(self._outcomes[-1])
            if recovered_s is None or recovered_s > RECOVERY_S:
                took = f"after {recovered_s:.0f} s" if recovered_s else f"not within {PATIENCE_S:.0f} s"
                self._problems.append(f"{' + '.join(names)}: recovered {took}")
            await self._nothing_committed_is_missing()
            await asyncio.sleep(GAP_S)

    async def _publish(self) -> None:
        """Publishes without end, whatever the broker does. What the oracle takes in is what stands in the topics."""
        stream = iter(Stream(self._seed, TOPICS, start_ms=int(time.time() * 1000) - 60_000))
        async with Publisher(self._ground.kafka.bootstrap_servers) as publisher:
            while True:
                for made in (next(stream) for _ in range(PUBLISH_RECORDS)):
                    self._meanings[made.number] = made.meaning
                    await publisher.send(made)
                await asyncio.sleep(PUBLISH_PAUSE_S)

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
        missing, extra = await self._compare_projection(expected)
        return Compared(
            records=len(log),
            deltas=sum(len(meaning.said) for *_, meaning in log),
            memberships=len(expected),
            dead_letters=len(dead),
            projected=sum(stored.included for stored in expected.values()),
            lost=len(lost) + len(dead - letters) + missing,
            wrong=len(differing) - len(lost) + len(letters - dead) + extra,
        )

    async def _compare_projection(self, expected: dict[tuple[str, str], Stored]) -> tuple[int, int]:
        """How many references are missing in Valkey, and how many stand there and should not."""
        try:
            async with ChangeFeed(self._ground.postgres.dsn) as feed, asyncio.timeout(PATIENCE_S):
                await until_caught_up(feed, Health(()), [PROJECTION])
        except TimeoutError:
            self._problems.append(f"the projection did not catch up within {PATIENCE_S:.0f} s")
        wanted = {
            Reference(segment, 1, context_reference(key))
            for (segment, key), stored in expected.items()
            if stored.included
        }
        async with RedisTarget(self._ground.valkey.url) as target:
            found = {reference async for page in target.references() for reference in page}
        if wanted != found:
            self._problems.append(
                f"projection: missing {sorted(wanted - found)[:5]}, extra {sorted(found - wanted)[:5]}"
            )
        return len(wanted - found), len(found - wanted)

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
