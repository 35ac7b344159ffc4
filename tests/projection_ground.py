"""Where projectors are tested: a real PostgreSQL, a real Valkey, and what happens between the two."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from consumers.feeds import Feed
from deploy.local.valkey import Valkey
from stores.postgres.change_feed import ChangeFeed
from stores.postgres.erasing import postgres_erasures
from stores.postgres.writing import PostgresStore
from stores.redis.target import RedisTarget
from stores.target import context_reference
from tests.builders import a_clearing, a_group, a_version
from worker.audit import Audit, Difference
from worker.health import Health
from worker.projection_metrics import ProjectionMetrics
from worker.projector import Projection, Projector, until_caught_up
from worker.sweeper import finish_sweeps

FEEDS = [Feed(name="all", format="amplitude", topics=("cohorts",))]
SYNCHRONIZED = "big_segments_synchronized_on"


class Ground:
    """A database with memberships, a Valkey, and projectors between the two."""

    def __init__(self, dsn: str, valkey: Valkey, store: PostgresStore, stack: AsyncExitStack) -> None:
        self.dsn, self.valkey, self.url = dsn, valkey, valkey.url
        self.prefix = f"test-{uuid.uuid4().hex[:8]}"
        self.name = "sdk"
        self._store = store
        self._stack = stack
        self._clock = 0
        self._running: list[asyncio.Task[None]] = []
        self.redis: Redis = Redis.from_url(valkey.url, decode_responses=True)

    async def put(self, *keys: str, included: bool = True, segment: str = "beta") -> None:
        """One more change of these contexts."""
        self._clock += 1
        group = a_group(*keys, segment=f"amplitude-{segment}", included=included, version=a_version(self._clock))
        refs = await self._store.resolve([group])
        await self._store.apply([(refs[group.segment].id, group)])

    async def clear(self, segment: str = "beta") -> None:
        """Drains the segment; the sweep is somebody else's."""
        self._clock += 1
        clearing = a_clearing(segment=f"amplitude-{segment}", drain=True, version=a_version(self._clock))
        refs = await self._store.resolve([clearing])
        await self._store.clear([(refs[clearing.segment].id, clearing)])

    async def sweep(self) -> None:
        await finish_sweeps(self._store)

    async def erase(self, key: str) -> None:
        """What the command does, beside projectors that run."""
        async with postgres_erasures(self.dsn) as erasures, self.target() as target:
            await erasures.bar(key)
            await erasures.put_out(key)
            await self.caught_up()
            await target.forget(context_reference(key))
            await erasures.delete(key)

    async def stored(self, ago_s: float = 0.0) -> None:
        """All that had arrived by then is stored."""
        await self._store.note_ingestion([("cohorts", 0, datetime.now(UTC) - timedelta(seconds=ago_s))])

    async def project(self, target: RedisTarget | None = None) -> asyncio.Task[None]:
        """A projector with connections of its own, which goes on."""
        feed = await self._stack.enter_async_context(ChangeFeed(self.dsn))
        target = await self._stack.enter_async_context(target or self.target())
        said = Projection(self.name, "production", FEEDS, freshness_s=30)
        projector = Projector(said, feed=feed, target=target, metrics=ProjectionMetrics([self.name]), health=Health(()))
        self._running.append(asyncio.create_task(projector.run()))
        return self._running[-1]

    def target(self) -> RedisTarget:
        return RedisTarget(self.url, prefix=self.prefix)

    async def caught_up(self) -> None:
        async with ChangeFeed(self.dsn) as feed, asyncio.timeout(60):
            await until_caught_up(feed, Health(()), [self.name])

    async def members(self, segment: str = "amplitude-beta", generation: int = 1) -> set[str]:
        """The contexts that stand in the target, by their references."""
        start = f"{self.prefix}:big_segment_include:"
        keys = [key async for key in self.redis.scan_iter(f"{start}*", count=1_000)]
        async with self.redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.sismember(key, f"{segment}.g{generation}")
            held = await pipeline.execute()
        return {key.removeprefix(start) for key, is_held in zip(keys, held, strict=True) if is_held}

    async def synchronized_on(self) -> int | None:
        said = await self.redis.get(f"{self.prefix}:{SYNCHRONIZED}")
        return int(said) if said else None

    async def audit(self) -> list[Difference]:
        async with ChangeFeed(self.dsn) as feed, self.target() as target:
            audit = Audit(feed, target, "production", self.caught_up)
            return [each async for page in audit.differences() for each in page]

    async def repair(self) -> list[Difference]:
        async with ChangeFeed(self.dsn) as feed, self.target() as target:
            audit = Audit(feed, target, "production", self.caught_up)
            found = []
            async for page in audit.differences():
                found += page
                await audit.repair(page)
            await self.caught_up()
            return found

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.redis.aclose()


def refs(*keys: str) -> set[str]:
    return set(map(context_reference, keys))


@asynccontextmanager
async def a_ground(dsn: str, valkey: Valkey) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(dsn, pool_max_size=2))
        ground = Ground(dsn, valkey, store, stack)
        try:
            yield ground
        finally:
            await ground.close()
