"""How long a delta takes from the broker to the committed row, at half of what the worker can do."""

from __future__ import annotations

import asyncio
import json
import time
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from statistics import median, quantiles

import asyncpg
from aiokafka import AIOKafkaProducer

from tests.benchmarks.contenders import Worker
from tests.benchmarks.end_to_end import drained
from tests.benchmarks.ground import COHORT, MEMBERS_A_BATCH, PARTITIONS, SEGMENTS, Ground, included
from tests.benchmarks.tables import console, progress, spread, table

CAPACITY_DELTAS = 400_000
SECONDS = 15
SHARE = 0.5
GOAL_S = 1.0


async def run(ground: Ground, rounds: int) -> None:
    webhooks = await ground.topic_of_webhooks(CAPACITY_DELTAS)
    middle, worst, capacities = [], [], []
    with progress() as bar:
        for _ in bar.track(range(rounds), description="freshness"):
            capacity = (await drained(ground, webhooks, "amplitude-webhook", CAPACITY_DELTAS, workers=1)).rate
            ages = await _ages_s(ground, SHARE * capacity)
            capacities.append(capacity)
            percentiles = quantiles(ages, n=100)
            middle.append(percentiles[49])
            worst.append(percentiles[98])
    shown = table(
        f"Freshness, broker to committed, {SECONDS} s at {SHARE:.0%} of the measured capacity", "what", "figure"
    )
    shown.add_row("capacity in the same round, deltas/s", spread(capacities))
    shown.add_row("p50, s", spread(middle, ".3f"))
    mark = "reached" if median(worst) <= GOAL_S else "MISSED"
    shown.add_row(f"p99, s (goal {GOAL_S:.0f}: {mark})", spread(worst, ".3f"))
    console.print(shown)


async def _ages_s(ground: Ground, deltas_a_second: float) -> list[float]:
    """The age of each record when its deltas were committed."""
    topic = await ground.topic()
    async with ground.database() as dsn:
        worker = Worker(ground, dsn, topic, "amplitude-webhook")
        try:
            await worker.assigned()
            await asyncio.sleep(1)
            deltas = round(deltas_a_second * SECONDS)
            watching = asyncio.create_task(watch(dsn, deltas))
            published = await publish(ground, topic, deltas, seconds=SECONDS)
            committed = await watching
        finally:
            worker.stop()
    return [at_commit - at for at, at_commit in zip(published, commit_times(committed, len(published)), strict=True)]


def commit_times(committed: Sequence[tuple[float, int]], batches: int) -> list[float]:
    """When each batch was committed: they are stored in about the order they came in."""
    times, counts = [at for at, _ in committed], [count for _, count in committed]
    return [times[bisect_left(counts, count)] for count in accumulate(MEMBERS_A_BATCH for _ in range(batches))]


async def publish(ground: Ground, topic: str, deltas: int, *, seconds: float, first: int = 0) -> list[float]:
    """Publishes batches of new members, from this number on, evenly; returns when each was handed to the client."""
    producer = AIOKafkaProducer(bootstrap_servers=ground.kafka.bootstrap_servers)
    await producer.start()
    started, published = time.time(), []
    for number in range(deltas // MEMBERS_A_BATCH):
        due = started + number * MEMBERS_A_BATCH * seconds / deltas
        await asyncio.sleep(max(0.0, due - time.time()))
        published.append(time.time())
        await producer.send(topic, _batch(first // MEMBERS_A_BATCH + number), partition=number % PARTITIONS)
    await producer.stop()
    return published


async def watch(dsn: str, members: int) -> list[tuple[float, int]]:
    """When how many were committed, until so many are."""
    session = await asyncpg.connect(dsn)
    seen = [(time.time(), await included(session))]
    while seen[-1][1] < members // MEMBERS_A_BATCH * MEMBERS_A_BATCH:
        await asyncio.sleep(0.01)
        seen.append((time.time(), await included(session)))
    await session.close()
    return seen


def member(number: int) -> str:
    """The key of a member."""
    return f"user-{number:012d}@example.com"


def _batch(number: int) -> bytes:
    first = number * MEMBERS_A_BATCH
    users = [{"user_id": member(first + place)} for place in range(MEMBERS_A_BATCH)]
    batch = {
        "cohort_id": COHORT.format(number % SEGMENTS),
        "in_cohort": True,
        "computed_time": "1692206763",
        "users": users,
    }
    return json.dumps(batch | {"cohort_name": "Bench", "message_id": f"{number}::enter::0"}).encode()
