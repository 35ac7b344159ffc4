"""The write path alone: 20,000 new deltas a batch into a table of a million rows, against `executemany`."""

from __future__ import annotations

import time

from stores.model import Cohort, DeltaGroup, SegmentKey, Version
from stores.postgres.writing import PostgresStore
from tests.benchmarks.contenders import BATCH, executemany_rate, rows
from tests.benchmarks.ground import MEMBERS_A_BATCH, SEGMENTS, Ground
from tests.benchmarks.tables import console, progress, ratios, spread, table, verdict

BATCHES = 8


async def run(ground: Ground, rounds: int) -> None:
    ours: list[float] = []
    executemany: list[float] = []
    batches = [rows(number * BATCH, BATCH) for number in range(BATCHES)]
    with progress() as bar:
        for _ in bar.track(range(rounds), description="store"):
            async with ground.database() as dsn:
                ours.append(await _store_rate(dsn))
            async with ground.database() as dsn:
                executemany.append(await executemany_rate(dsn, batches))
    shown = table(f"Store write path, {BATCH:,} deltas a batch, a million rows before", "way", "deltas/s")
    shown.add_row("COPY + MERGE, versions, flips, counts, feed", spread(ours))
    shown.add_row("executemany upsert, versions", spread(executemany))
    shown.add_row("ratio", verdict(ratios(ours, executemany), 2.0))
    console.print(shown)


async def _store_rate(dsn: str) -> float:
    batches = [_batch(number) for number in range(BATCHES)]
    async with PostgresStore(dsn, pool_max_size=2) as store:
        segments = await store.resolve([group for batch in batches for group in batch])
        started = time.perf_counter()
        for batch in batches:
            await store.apply([(segments[group.segment].id, group) for group in batch])
        return BATCHES * BATCH / (time.perf_counter() - started)


def _batch(number: int) -> list[DeltaGroup]:
    first = number * BATCH // MEMBERS_A_BATCH
    return [_group(record) for record in range(first, first + BATCH // MEMBERS_A_BATCH)]


def _group(record: int) -> DeltaGroup:
    cohort_id = f"bench{record % SEGMENTS}"
    return DeltaGroup(
        SegmentKey("production", f"amplitude-{cohort_id}"),
        Cohort("amplitude", cohort_id),
        "user",
        included=True,
        version=Version(1_692_206_763_000_000, record),
        context_keys=[f"user-{record * MEMBERS_A_BATCH + place:012d}@example.com" for place in range(MEMBERS_A_BATCH)],
        places=range(MEMBERS_A_BATCH),
    )
