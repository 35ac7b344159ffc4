"""How long a delta takes from the broker to the committed row, at half of what the worker can do."""

from __future__ import annotations

import asyncio
import json
import time
from bisect import bisect_left
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
    """The age of each record when its deltas were committed: records are stored in about the order they came in."""
    topic = await ground.topic()
    async with ground.database() as dsn:
        worker = Worker(ground, dsn, topic, "amplitude-webhook")
        try:
            await worker.assigned()
            await asyncio.sleep(1)
            watching = asyncio.create_task(_watch(dsn, round(deltas_a_second * SECONDS) // MEMBERS_A_BATCH))
            published = await _publish(ground, topic, deltas_a_second)
            committed = await watching
        finally:
            worker.stop()
    times, counts = [at for at, _ in committed], [count for _, count in committed]
    needed = accumulate(MEMBERS_A_BATCH for _ in published)
    return [times[bisect_left(counts, count)] - at for at, count in zip(published, needed, strict=True)]


async def _publish(ground: Ground, topic: str, deltas_a_second: float) -> list[float]:
    """Publishes batches evenly; returns when the broker acknowledged each."""
    producer = AIOKafkaProducer(bootstrap_servers=ground.kafka.bootstrap_servers)
    await producer.start()
    started, published = time.time(), []
    for number in range(round(deltas_a_second * SECONDS) // MEMBERS_A_BATCH):
        due = started + number * MEMBERS_A_BATCH / deltas_a_second
        await asyncio.sleep(max(0.0, due - time.time()))
        published.append(time.time())
        await producer.send(topic, _batch(number), partition=number % PARTITIONS)
    await producer.stop()
    return published


async def _watch(dsn: str, batches: int) -> list[tuple[float, int]]:
    session = await asyncpg.connect(dsn)
    seen = [(time.time(), await included(session))]
    while seen[-1][1] < batches * MEMBERS_A_BATCH:
        await asyncio.sleep(0.01)
        seen.append((time.time(), await included(session)))
    await session.close()
    return seen


def _batch(number: int) -> bytes:
    first = number * MEMBERS_A_BATCH
    users = [{"user_id": f"user-{first + member:012d}@example.com"} for member in range(MEMBERS_A_BATCH)]
    batch = {
        "cohort_id": COHORT.format(number % SEGMENTS),
        "in_cohort": True,
        "computed_time": "1692206763",
        "users": users,
    }
    return json.dumps(batch | {"cohort_name": "Bench", "message_id": f"{number}::enter::0"}).encode()
