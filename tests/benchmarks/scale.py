"""What a delta, a membership and a change cost in CPU seconds and bytes: the figures of deploy/docs/scale.md.

It counts CPU time and bytes, which other load on the machine changes little, so it runs one round whatever is asked
for. What it found lies in `.local/measured.json` at the end; `tests/scale/measured.json` is a copy of such a run.
"""

from __future__ import annotations

import os
import platform
import random
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import psutil

from deploy.local import guard
from deploy.local.dynamodb import CREDENTIALS, REGION, DynamoDb
from stores.dynamodb.target import DynamoTarget
from stores.target import Change
from tests.benchmarks.end_to_end import SKIPPED, drained
from tests.benchmarks.freshness import member
from tests.benchmarks.ground import (
    MEMBERS_A_BATCH,
    PARTITIONS,
    SEEDED_ROWS,
    SEGMENTS,
    Ground,
    identify,
    numbered,
    webhook,
)
from tests.benchmarks.meter import Meter, metering
from tests.benchmarks.tables import console
from tests.scale.costs import PAGE_BYTES, Drain, Kind, Machine, Measured, PageImages
from tests.scale.page import unit_costs

NEW = 2_000_000
SINGLES = 300_000
SAMPLE = 300_000
"""Deltas to members anywhere in the table: a tenth of its rows."""
FEW = 30_000
"""So few that most pages are met by one of them only."""
CHURN_PARTS = 4
"""A part of all members leaves, then comes a VACUUM; likewise when they come back."""
DRAINED = 800_000
HOT_SHARE = 0.7
COMPUTED = 1692206763
FOUND = guard.ROOT / ".local" / "measured.json"


async def run(ground: Ground, _: int) -> None:
    if not ground.postgres.is_ours:
        raise RuntimeError("This benchmark changes a setting of the server, so it needs one that it has started itself")
    machine = await _machine(ground)
    context_bytes, membership_bytes = await _dynamodb_bytes()
    async with ground.database() as dsn, metering(ground, dsn) as meter:
        costs = await _costs(meter)
    found = Measured(
        machine=machine,
        drains=[
            await _drain(ground, workers=workers, hot_share=hot_share)
            for workers, hot_share in ((1, 0.0), (2, 0.0), (2, HOT_SHARE))
        ],
        dynamodb_bytes_context=context_bytes,
        dynamodb_bytes_membership=membership_bytes,
        **costs,
    )
    FOUND.parent.mkdir(exist_ok=True)
    FOUND.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    console.print(unit_costs(found), markup=False, soft_wrap=True)
    console.print(f"\nAll of it is in {FOUND}. What follows from it: .venv/bin/python -m tests.scale {FOUND}")


async def _costs(meter: Meter) -> dict[str, Any]:
    """What one database tells, pass by pass: a million rows that nobody touches, and then ours."""
    before = await meter.sizes()
    new = await meter.spend(meter.batches, _new())
    after = await meter.sizes()
    contexts, projected = await meter.project(NEW + SEEDED_ROWS)
    rebuilt = await meter.rebuild(NEW + SEEDED_ROWS)
    skipped = await meter.spend(meter.others, _of_another_cell())
    single = await meter.spend(meter.singles, map(identify, range(SINGLES)))
    memberships, _ = await meter.project(SINGLES)
    await meter.vacuum()

    sample = _samples()
    await meter.checkpoint()
    sizes = await meter.sizes()
    flips = [await meter.spend(meter.batches, _batches(next(sample), 1, included=False)) for _ in range(2)]
    vacuumed = await meter.spend_vacuum()
    await meter.checkpoint()
    refreshes = [await meter.spend(meter.batches, _batches(next(sample), 2, included=True)) for _ in range(2)]
    stale = await meter.spend(meter.batches, _batches(next(sample), -1, included=True))
    async with meter.compressing():
        await meter.checkpoint()
        packed = await meter.spend(meter.batches, _batches(next(sample), 3, included=False))
    await meter.checkpoint()
    few = await meter.spend(meter.batches, _batches(next(sample)[:FEW], 3, included=False))
    await _churn(meter)
    churned = await meter.sizes()

    # Right after a checkpoint and not: the same deltas, but for images of whole pages.
    image = (flips[0].wal_bytes - flips[1].wal_bytes) / (flips[0].images - flips[1].images)
    flip = flips[0].plus(flips[1]).cost(2 * SAMPLE, image)
    heap_pages, key_pages = (round(size / PAGE_BYTES * NEW / (NEW + SINGLES + SEEDED_ROWS)) for size in sizes[:2])
    storage = after.a_row(before, NEW)
    return {
        "deltas": {
            Kind.NEW: new.cost(NEW, image),
            Kind.FLIP: flip,
            Kind.REFRESH: refreshes[0].plus(refreshes[1]).cost(2 * SAMPLE, image),
            Kind.STALE: stale.cost(SAMPLE, image),
        },
        "single": single.cost(SINGLES, image),
        "skipped": skipped.cost(NEW, image),
        "vacuum_cpu_s": vacuumed.cpu.a_million(2 * SAMPLE).postgres,
        "vacuum_wal_bytes": vacuumed.wal_bytes / (2 * SAMPLE),
        "page_image_bytes": image,
        "page_image_bytes_compressed": (packed.wal_bytes - SAMPLE * flip.wal_bytes) / packed.images,
        "compressing_cpu_s": (packed.cpu.postgres - flips[0].cpu.postgres) * 1_000_000 / packed.images,
        "page_images": [
            PageImages(kind, deltas, heap_pages, key_pages, spent.images)
            for kind, deltas, spent in (
                (Kind.FLIP, FEW, few),
                (Kind.FLIP, SAMPLE, flips[0]),
                (Kind.REFRESH, SAMPLE, refreshes[0]),
            )
        ],
        "storage": storage,
        "storage_churned": storage.grown(churned, sizes),
        "kafka_bytes": len(webhook(0, numbered(0, MEMBERS_A_BATCH))) / MEMBERS_A_BATCH,
        "kafka_bytes_single": len(identify(0)),
        "projected": projected,
        "rebuilt_a_second": rebuilt,
        "redis_bytes_context": contexts,
        "redis_bytes_membership": memberships,
    }


async def _churn(meter: Meter) -> None:
    """Everybody leaves and comes back, in no order that the table has."""
    shuffled = random.Random(1).sample(range(NEW), NEW)
    part = NEW // CHURN_PARTS
    for minute, included in enumerate((False, True), start=4):
        for start in range(0, NEW, part):
            await meter.publish(meter.batches, _batches(shuffled[start : start + part], minute, included=included))
            await meter.vacuum()


def _new() -> Iterator[bytes]:
    return (webhook(batch, numbered(batch, MEMBERS_A_BATCH)) for batch in range(NEW // MEMBERS_A_BATCH))


def _of_another_cell() -> Iterator[bytes]:
    """Likewise, in a format whose payload says which environment it is for."""
    for batch in range(NEW // MEMBERS_A_BATCH):
        cohort = {"cohortId": f"bench{batch}", "cohortName": "Bench", "value": True}
        members = [{"userId": name, **cohort} for name in numbered(batch, MEMBERS_A_BATCH)]
        yield msgspec.json.encode({"environmentId": "elsewhere", "batch": members})


def _samples() -> Iterator[Sequence[int]]:
    """Members from anywhere, nobody twice."""
    drawn = random.Random(0).sample(range(NEW), NEW)
    return (drawn[start : start + SAMPLE] for start in range(0, NEW, SAMPLE))


def _batches(members: Iterable[int], minute: int, *, included: bool) -> Iterator[bytes]:
    """Batches of these members, each in the cohort that it is in, as of some minute after or before the first."""
    of_cohort: dict[int, list[str]] = {cohort: [] for cohort in range(SEGMENTS)}
    for number in members:
        of_cohort[number // MEMBERS_A_BATCH % SEGMENTS].append(member(number))
    for start in range(0, max(map(len, of_cohort.values())), MEMBERS_A_BATCH):
        for cohort, names in of_cohort.items():
            if users := names[start : start + MEMBERS_A_BATCH]:
                yield webhook(cohort, users, included=included, computed_time=COMPUTED + 60 * minute)


async def _drain(ground: Ground, *, workers: int, hot_share: float) -> Drain:
    """How long a topic that waits takes, with this share of it in its first partition, or all evenly."""
    topic = await ground.topic()
    count = DRAINED // MEMBERS_A_BATCH
    hot = round(count * hot_share)
    await ground.fill(
        topic,
        (
            (
                0 if number < hot else number % (PARTITIONS - bool(hot)) + bool(hot),
                webhook(number, numbered(number, MEMBERS_A_BATCH)),
            )
            for number in range(count)
        ),
    )
    rate = (await drained(ground, topic, "amplitude-webhook", DRAINED, workers=workers)).rate
    return Drain(workers, PARTITIONS, hot_share, DRAINED, SKIPPED, (1 - SKIPPED) * DRAINED / rate)


async def _dynamodb_bytes() -> tuple[float, float]:
    """An item as DynamoDB counts it, with one membership, and what each one more adds."""
    os.environ.update(CREDENTIALS)
    changes = [Change(f"amplitude-bench{number}", 1, member(0), included=True) for number in range(2)]
    with tempfile.TemporaryDirectory(prefix="cohort-sync-bench-") as folder, DynamoDb(Path(folder)).start() as server:
        async with DynamoTarget("bench", region=REGION, endpoint_url=server.endpoint_url) as target:
            await target.create_table()
            sizes = []
            for change in changes:
                await target.apply([change])
                answer = await target._table.call_service("scan", TableName="bench")
                sizes.append(sum(map(_item_bytes, answer["Items"])))
    return sizes[0], sizes[1] - sizes[0]


def _item_bytes(item: dict[str, dict[str, Any]]) -> int:
    """Names and values in UTF-8; a set has 3 bytes besides, and 1 for each element."""
    total = 0
    for name, typed in item.items():
        ((kind, value),) = typed.items()
        total += len(name) + (3 + sum(1 + len(each) for each in value) if kind == "SS" else len(value))
    return total


async def _machine(ground: Ground) -> Machine:
    load = os.getloadavg()[0]
    session = await asyncpg.connect(ground.postgres.dsn)
    version = await session.fetchval("SHOW server_version")
    await session.close()
    return Machine(
        date=datetime.now(UTC).date().isoformat(),
        cores=os.cpu_count() or 1,
        processor=_processor(),
        memory_gb=round(psutil.virtual_memory().total / 2**30),
        postgres=version,
        load_before=round(load, 2),
    )


def _processor() -> str:
    named = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return named[1] if named else platform.processor()
