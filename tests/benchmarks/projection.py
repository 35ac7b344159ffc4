"""From PostgreSQL to what the SDKs read: how fast changes are applied, against bare pipelines of the same client."""

from __future__ import annotations

import asyncio
import time
import uuid

from redis.asyncio import Redis

from consumers.feeds import Feed
from stores.postgres.change_feed import ChangeFeed
from stores.redis import CHUNK_CHANGES, RedisTarget
from stores.target import context_reference, segment_reference
from tests.benchmarks.ground import SEEDED_ROWS, SEGMENTS, Ground
from tests.benchmarks.tables import console, progress, ratios, spread, table, verdict
from worker.health import Health
from worker.projection_metrics import ProjectionMetrics
from worker.projector import Projection, Projector, until_caught_up

BARE = 300_000
GOAL = 0.8
NAME = "bench"


async def run(ground: Ground, rounds: int) -> None:
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
    shown.add_row("ratio", verdict(ratios(ours, bare), GOAL))
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
    async with Redis.from_url(url) as client:
        started = time.perf_counter()
        for start in range(0, BARE, CHUNK_CHANGES):
            async with client.pipeline(transaction=False) as pipeline:
                for key, reference in pairs[start : start + CHUNK_CHANGES]:
                    pipeline.sadd(key, reference)
                await pipeline.execute()
        taken_s = time.perf_counter() - started
    await _flush(url)
    return BARE / taken_s


async def _flush(url: str) -> None:
    async with Redis.from_url(url, socket_timeout=60) as client:
        await client.flushall()
