"""Faults of the projectors, and of the Valkey that they fill."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError

from stores.postgres.change_feed import LEASE_S
from stores.redis.target import ANSWER_TIMEOUT_S
from tests.faults.ground import Ground, fault, hold


@fault
async def projector_killed(ground: Ground) -> None:
    """Perhaps the leader, perhaps the one that waits."""
    await ground.projectors.replace(ground.projectors.one(ground.random), signal.SIGKILL)


@fault
async def projector_asked_to_stop(ground: Ground) -> None:
    """A roll-out."""
    await ground.projectors.replace(ground.projectors.one(ground.random), signal.SIGTERM)


@fault
async def projector_frozen_past_its_lease(ground: Ground) -> None:
    """It comes back with a page that it had read, when another has led meanwhile."""
    projector = ground.projectors.one(ground.random)
    projector.freeze()
    await asyncio.sleep(LEASE_S + ground.random.uniform(2, 5))
    projector.thaw()


@fault
async def valkey_killed(ground: Ground) -> None:
    """It keeps nothing, so it comes back empty."""
    async with ground.valkey_server:
        ground.valkey.kill()
        await hold(ground)
        await asyncio.to_thread(ground.valkey.restart)


@fault
async def valkey_frozen(ground: Ground) -> None:
    """Its connections stay open, and nothing answers for so long that we send it all again on another one."""
    async with ground.valkey_server:
        ground.valkey.suspend()
        await asyncio.sleep(ANSWER_TIMEOUT_S)
        await hold(ground)
        ground.valkey.resume()


@fault
async def valkey_flushed(ground: Ground) -> None:
    """By somebody who took it for a cache."""
    async with _commanding(ground) as redis:
        await redis.flushall()


@fault
async def valkey_full(ground: Ground) -> None:
    """It takes nothing more."""
    async with _commanding(ground) as redis:
        await redis.config_set("maxmemory", "1")
        await hold(ground)
        await redis.config_set("maxmemory", "0")


@asynccontextmanager
async def _commanding(ground: Ground) -> AsyncIterator[Redis]:
    async with ground.valkey_server, Redis.from_url(ground.valkey.url) as redis:
        try:
            yield redis
        except RedisError as problem:
            ground.wrong.append(f"Valkey: {problem}")
