"""From Kafka to committed rows, all keys new, a million rows before: workers, and what else one could do.

The worker does everything it always does: checks, segments, versions, flips and counts, dead letters, metrics, commits.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import NamedTuple

import asyncpg

from tests.benchmarks.contenders import BATCH, Worker, copy_rate, copy_stream, executemany_rate, rows
from tests.benchmarks.ground import CpuSeconds, Ground, rate_between, timeline
from tests.benchmarks.tables import console, progress, ratios, spread, table, verdict

DELTAS = 800_000
IDENTIFIES = 400_000
EXECUTEMANY_ROWS = 160_000
SKIPPED = 0.1
"""The rate is taken from this share of the rows on, so that joining the group and the first batch don't count."""


class Drained(NamedTuple):
    rate: float
    cpu_a_million: CpuSeconds


async def run(ground: Ground, rounds: int) -> None:
    webhooks = await ground.topic_of_webhooks(DELTAS)
    identifies = await ground.topic_of_identifies(IDENTIFIES)
    streams = [copy_stream(rows(start, BATCH), 1_000 + start) for start in range(0, DELTAS, BATCH)]
    upserts = [rows(start, BATCH) for start in range(0, EXECUTEMANY_ROWS, BATCH)]
    copy, executemany = [], []
    one, two, calls = [], [], []
    with progress() as bar:
        for _ in bar.track(range(rounds), description="end to end"):
            async with ground.database() as dsn:
                copy.append(await copy_rate(dsn, streams))
            one.append(await drained(ground, webhooks, "amplitude-webhook", DELTAS, workers=1))
            async with ground.database() as dsn:
                executemany.append(await executemany_rate(dsn, upserts))
            two.append(await drained(ground, webhooks, "amplitude-webhook", DELTAS, workers=2))
            calls.append(await drained(ground, identifies, "segment", IDENTIFIES, workers=1))
    rates = {
        "plain COPY into the table with its indexes": copy,
        "executemany upsert, versions": executemany,
        "one worker, Amplitude batches of 1,000": [each.rate for each in one],
        "two workers, Amplitude batches of 1,000": [each.rate for each in two],
        "one worker, identify calls": [each.rate for each in calls],
    }
    shown = table("End to end, Kafka to committed rows, a million rows before", "way", "rows/s")
    for way, values in rates.items():
        shown.add_row(way, spread(values))
    _, _, one_rate, two_rate, call_rate = rates.values()
    shown.add_row("one worker / COPY", verdict(ratios(one_rate, copy), 0.60))
    shown.add_row("one worker / executemany", verdict(ratios(one_rate, executemany), 1.80))
    shown.add_row("two workers / one", verdict(ratios(two_rate, one_rate), 1.20))
    shown.add_row("identify / Amplitude", verdict(ratios(call_rate, one_rate), 0.45))
    console.print(shown)
    cpu = table("CPU seconds for a million deltas", "way", "worker", "PostgreSQL", "Kafka")
    for way, each in (("one worker, Amplitude", one), ("two workers, Amplitude", two), ("one worker, identify", calls)):
        parts = zip(*(drain.cpu_a_million for drain in each), strict=True)
        cpu.add_row(way, *(spread(part, ".1f") for part in parts))
    console.print(cpu)


async def drained(ground: Ground, topic: str, form: str, deltas: int, *, workers: int) -> Drained:
    """Drains the topic into a fresh database. The first write is held back until every worker has its partitions."""
    async with ground.database() as dsn:
        gate = await asyncpg.connect(dsn)
        group_id = f"bench-{uuid.uuid4().hex[:8]}"
        held = gate.transaction()
        await held.start()
        await gate.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
        started = [Worker(ground, dsn, topic, form, group_id=group_id) for _ in range(workers)]
        try:
            await asyncio.gather(*(worker.assigned() for worker in started))
            await asyncio.sleep(2)  # the group settles
            pids = [worker.pid for worker in started]
            before = ground.cpu(*pids)
            await held.rollback()
            seen = await timeline(dsn, deltas)
            cpu = ground.cpu(*pids).since(before)
        finally:
            for worker in started:
                worker.stop()
            await gate.close()
        return Drained(rate_between(seen, round(SKIPPED * deltas), deltas), cpu.a_million(deltas))
