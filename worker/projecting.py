"""Composition of `cohort-sync project`: a projector for each projection, side by side, none stopped by another."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, suppress

import structlog

from stores.errors import StoreRefusedError
from stores.postgres.change_feed import ChangeFeed
from stores.redis import RedisTarget
from worker.backoff import until_available
from worker.health import Health
from worker.http_server import HttpServer
from worker.projection_metrics import ProjectionMetrics
from worker.projector import Projection, Projector, until_caught_up
from worker.settings import ProjectionSettings, Settings, environment_of
from worker.watchdog import Watchdog, measure_loop_lag

log = structlog.get_logger(__name__)

LIFE_SIGN_S = 1.0


def target_of(projection: ProjectionSettings) -> RedisTarget:
    """The target that the configuration names. It connects when it is first used. Raises `StoreRefusedError`."""
    if projection.type == "dynamodb":
        raise StoreRefusedError(f"projection {projection.name}: DynamoDB can't be filled yet, only Redis and Valkey")
    try:
        return RedisTarget(projection.redis_url(), prefix=projection.prefix)
    except ValueError:  # its text may hold a password
        raise StoreRefusedError(
            f"projection {projection.name}: url should be that of a Redis, as in redis://127.0.0.1:6379/0"
        ) from None


def projection_of(settings: Settings, projection: ProjectionSettings) -> Projection:
    """The same for its projector."""
    return Projection(
        projection.name, environment_of(settings, projection), settings.feed_list(), settings.limits.freshness_s
    )


async def run_projectors(settings: Settings, *, until_applied: bool = False) -> None:
    """Runs until SIGTERM or SIGINT, or until all that is committed now is applied. Raises what a person must mend."""
    names = [projection.name for projection in settings.projections]
    health = Health(("postgres", *(f"projection {name}" for name in names)))
    metrics = ProjectionMetrics(names)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(HttpServer(metrics, health, host=settings.http.host, port=settings.http.port))
        stack.enter_context(Watchdog(health, stall_s=settings.watchdog.stall_s))
        feed = await stack.enter_async_context(ChangeFeed(settings.postgres.url()))
        projectors = []
        for projection in settings.projections:
            target = await stack.enter_async_context(target_of(projection))
            projectors.append(
                Projector(projection_of(settings, projection), feed=feed, target=target, metrics=metrics, health=health)
            )
        working = asyncio.create_task(_work(projectors, feed, metrics, health, names if until_applied else None))
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, working.cancel)
        with suppress(asyncio.CancelledError):
            await working
    log.info("projectors_stopped")


async def _work(
    projectors: list[Projector], feed: ChangeFeed, metrics: ProjectionMetrics, health: Health, until: list[str] | None
) -> None:
    await until_available(health, "postgres", feed.require_schema)
    log.info("projectors_started", projections=len(projectors))
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(measure_loop_lag(metrics), name="loop-lag")]
        beside.append(tasks.create_task(_show_life(health), name="life"))
        beside += [tasks.create_task(projector.run()) for projector in projectors]
        if until is not None:
            await until_caught_up(feed, health, until)
            for task in beside:
                task.cancel()


async def _show_life(health: Health) -> None:
    """A projector that waits for its turn, or for its target, is as alive as one that works.

    All that it waits for has a timeout, so the loop's coming round is the progress that there is to tell.
    """
    while True:
        health.progress()
        await asyncio.sleep(LIFE_SIGN_S)
