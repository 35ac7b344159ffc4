"""From PostgreSQL to what the SDKs read: how fast changes are applied, against bare pipelines of the same client."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median, quantiles
from typing import Any

import asyncpg
from ldclient.integrations import Redis
from redis import asyncio as redis

from consumers.feeds import Feed
from stores.postgres.change_feed import ChangeFeed
from stores.redis.target import CHUNK_CHANGES, RedisTarget
from stores.target import context_reference, segment_reference
from tests.benchmarks.contenders import Command, Worker, settings
from tests.benchmarks.drain import MEMORY_LIMIT_MIB, peak_memory_mib
from tests.benchmarks.freshness import commit_times, member, publish, watch
from tests.benchmarks.ground import COHORT, HASH_OF_KEY, MEMBERS_A_BATCH, SEEDED_ROWS, SEGMENTS, Ground
from tests.benchmarks.tables import console, progress, ratios, spread, table, verdict
from worker.health import Health
from worker.projection_metrics import ProjectionMetrics
from worker.projector import Projection, Projector, until_caught_up

BARE = 300_000
GOAL_RATIO = 0.8
CAPACITY_DELTAS = 200_000
SECONDS = 15
SHARE = 0.5
GOAL_S = 1.0
REBUILT = 5_000_000
NAME = "bench"


async def run(ground: Ground, rounds: int) -> None:
    await _throughput(ground, rounds)
    await _freshness(ground, rounds)
    await _rebuild(ground)


async def _throughput(ground: Ground, rounds: int) -> None:
    ours, bare = [], []
    with progress() as bar:
        for _ in bar.track(range(rounds), description="projection"):
            bare.append(await _bare_rate(ground.valkey.url))
            async with ground.database() as dsn:
                ours.append(await _applied_rate(dsn, ground.valkey.url))
    shown = table(
        f"Projection of {SEEDED_ROWS:,} memberships to Valkey, {CHUNK_CHANGES:,} a pipeline", "way", "a second"
    )
    shown.add_row("projector: change feed, SADD, cursor", spread(ours))
    shown.add_row("bare pipelined SADD loop, the same client", spread(bare))
    shown.add_row("ratio", verdict(ratios(ours, bare), GOAL_RATIO))
    console.print(shown)


async def _applied_rate(dsn: str, url: str) -> float:
    """A projector that begins with nothing, until all is there."""
    metrics = ProjectionMetrics([NAME])
    said = Projection(NAME, "production", [Feed(name="all", format="amplitude", topics=("cohorts",))], freshness_s=30)
    async with ChangeFeed(dsn) as feed, RedisTarget(url, prefix=uuid.uuid4().hex) as target:
        projector = Projector(said, feed=feed, target=target, metrics=metrics, health=Health(()))
        started = time.perf_counter()
        projecting = asyncio.create_task(projector.run())
        await until_caught_up(feed, Health(()), [NAME])
        taken_s = time.perf_counter() - started
        projecting.cancel()
        await asyncio.gather(projecting, return_exceptions=True)
    await _flush(url)
    return SEEDED_ROWS / taken_s


async def _bare_rate(url: str) -> float:
    """What the client does when it has nothing else to do: keys and values are ready before."""
    prefix = uuid.uuid4().hex
    pairs = [
        (
            f"{prefix}:big_segment_include:{context_reference(f'seed{number}')}",
            segment_reference(f"amplitude-seed{number % SEGMENTS}", 1),
        )
        for number in range(BARE)
    ]
    async with redis.Redis.from_url(url) as client:
        started = time.perf_counter()
        for start in range(0, BARE, CHUNK_CHANGES):
            async with client.pipeline(transaction=False) as pipeline:
                for key, reference in pairs[start : start + CHUNK_CHANGES]:
                    pipeline.sadd(key, reference)
                await pipeline.execute()
        taken_s = time.perf_counter() - started
    await _flush(url)
    return BARE / taken_s


async def _freshness(ground: Ground, rounds: int) -> None:
    middle, worst, capacities = [], [], []
    with progress() as bar:
        for _ in bar.track(range(rounds), description="commit to SDK"):
            async with ground.database() as dsn, _running(ground, dsn) as topic:
                capacity = await _capacity(ground, dsn, topic)
                ages = await _ages_s(ground, dsn, topic, SHARE * capacity)
            capacities.append(capacity)
            percentiles = quantiles(ages, n=100)
            middle.append(percentiles[49])
            worst.append(percentiles[98])
    shown = table(
        f"From commit to the SDK's store, {SECONDS} s at {SHARE:.0%} of what worker and projector sustain",
        "what",
        "figure",
    )
    shown.add_row("capacity in the same round, deltas/s", spread(capacities))
    shown.add_row("p50, s", spread(middle, ".3f"))
    mark = "reached" if median(worst) <= GOAL_S else "MISSED"
    shown.add_row(f"p99, s (goal {GOAL_S:.0f}: {mark})", spread(worst, ".3f"))
    console.print(shown)


@asynccontextmanager
async def _running(ground: Ground, dsn: str) -> AsyncIterator[str]:
    """A worker and a projector that has applied all that is there. Gives the topic that they follow."""
    topic = await ground.topic()
    projector = Command("project", settings=_settings(ground, dsn, topic))
    worker = Worker(ground, dsn, topic, "amplitude-webhook")
    try:
        await worker.assigned()
        async with ChangeFeed(dsn) as feed:
            await until_caught_up(feed, Health(()), [NAME])
        yield topic
    finally:
        worker.stop()
        projector.stop()
        await _flush(ground.valkey.url)


async def _capacity(ground: Ground, dsn: str, topic: str) -> float:
    """Deltas a second from Kafka to the target, published as fast as they are taken."""
    started = time.perf_counter()
    await publish(ground, topic, CAPACITY_DELTAS, seconds=0.0)
    await watch(dsn, CAPACITY_DELTAS)
    async with ChangeFeed(dsn) as feed:
        await until_caught_up(feed, Health(()), [NAME])
    return CAPACITY_DELTAS / (time.perf_counter() - started)


async def _ages_s(ground: Ground, dsn: str, topic: str, deltas_a_second: float) -> list[float]:
    """Of each batch, how long after its commit the SDK's own store finds the last of its members."""
    before, deltas = CAPACITY_DELTAS, round(deltas_a_second * SECONDS)
    watching = asyncio.create_task(watch(dsn, before + deltas))
    reading = asyncio.create_task(asyncio.to_thread(_readable_at, ground.valkey.url, before, deltas))
    published = await publish(ground, topic, deltas, seconds=SECONDS, first=before)
    committed = commit_times([(at, count - before) for at, count in await watching], len(published))
    return [readable - at for readable, at in zip(await reading, committed, strict=True)]


def _readable_at(url: str, first: int, deltas: int) -> list[float]:
    store = Redis.new_big_segment_store(url=url)
    times = []
    for number in range(first // MEMBERS_A_BATCH, (first + deltas) // MEMBERS_A_BATCH):
        hashed = context_reference(member((number + 1) * MEMBERS_A_BATCH - 1))
        reference = segment_reference(f"amplitude-{COHORT.format(number % SEGMENTS)}", 1)
        while not (store.get_membership(hashed) or {}).get(reference):
            time.sleep(0.005)
        times.append(time.time())
    store.stop()  # type: ignore[no-untyped-call]
    return times


async def _rebuild(ground: Ground) -> None:
    async with ground.database() as dsn:
        session = await asyncpg.connect(dsn)
        await session.execute(
            f"""
            INSERT INTO membership
            SELECT 1 + n % {SEGMENTS}, {HASH_OF_KEY}, key, true, 0, 0, pg_current_xact_id()
            FROM generate_series(1, {REBUILT - SEEDED_ROWS}) AS n, LATERAL (SELECT 'more' || n) AS named (key)
            """,
            timeout=600,
        )
        await session.close()
        started = time.perf_counter()
        rebuilding = Command("rebuild", NAME, settings=_settings(ground, dsn, "none"))
        watching = asyncio.create_task(peak_memory_mib(rebuilding.pid))
        await rebuilding.ended()
        taken_s = time.perf_counter() - started
        await rebuilding.said("is whole")
        watching.cancel()
        peak = await watching
        rebuilding.stop()
    await _flush(ground.valkey.url)
    shown = table(f"Rebuild of {REBUILT:,} memberships, filled and compared", "what", "figure")
    shown.add_row("seconds", f"{taken_s:,.0f}")
    mark = "kept" if peak < MEMORY_LIMIT_MIB else "BROKEN"
    shown.add_row(f"peak memory, MiB (limit {MEMORY_LIMIT_MIB}: {mark})", f"{peak:.0f}")
    console.print(shown)


def _settings(ground: Ground, dsn: str, topic: str) -> dict[str, Any]:
    target = {"name": NAME, "type": "redis", "environment": "production", "url": ground.valkey.url}
    return {**settings(ground, dsn, topic, "amplitude-webhook"), "projections": [target]}


async def _flush(url: str) -> None:
    async with redis.Redis.from_url(url, socket_timeout=60) as client:
        await client.flushall()
