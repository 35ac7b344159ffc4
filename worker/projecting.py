"""Composition of `cohort-sync project`: a projector for each projection, side by side, none stopped by another."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

import structlog

from stores.dynamodb.target import DynamoTarget
from stores.errors import StoreRefusedError
from stores.postgres.change_feed import ChangeFeed
from stores.redis.target import RedisTarget
from stores.target import AuditableTarget
from worker.backoff import ask_store, until_available
from worker.health import Health
from worker.http_server import HttpServer
from worker.projection_metrics import ProjectionMetrics
from worker.projector import Projection, Projector, until_in
from worker.settings import ProjectionSettings, Settings, environment_of
from worker.watchdog import Watchdog, measure_loop_lag, show_life

log = structlog.get_logger(__name__)

REFUSED_AGAIN_S = 15.0
CHECK_EVERY_S = 5.0


def target_of(projection: ProjectionSettings) -> RedisTarget | DynamoTarget:
    """The target that the configuration names. It connects when it is first used."""
    if projection.type == "dynamodb":
        return DynamoTarget(
            projection.table or "",
            region=projection.region,
            endpoint_url=projection.endpoint_url.get_secret_value() if projection.endpoint_url else None,
            prefix=projection.prefix,
        )
    return RedisTarget(
        projection.redis_url,
        prefix=projection.prefix,
        ssl_cafile=projection.ssl_cafile,
        ssl_certfile=projection.ssl_certfile,
        ssl_keyfile=projection.ssl_keyfile,
    )


def projection_of(settings: Settings, projection: ProjectionSettings) -> Projection:
    """The same for its projector."""
    return Projection(
        projection.name, environment_of(settings, projection), settings.feed_list(), settings.limits.freshness_s
    )


async def run_projectors(settings: Settings, *, until_applied: bool = False, create_tables: bool = False) -> None:
    """Runs until SIGTERM or SIGINT, or until all that is committed now is applied. Raises what a person must mend.

    Only what goes on for ever answers HTTP: a job beside it must not need a port of its own.
    """
    names = [projection.name for projection in settings.projections]
    health = Health(("postgres", *(f"projection {name}" for name in names)))
    metrics = ProjectionMetrics(names)
    async with AsyncExitStack() as stack:
        if not until_applied:
            http = settings.http
            await stack.enter_async_context(HttpServer(metrics, health, host=http.host, port=http.port))
        stack.enter_context(Watchdog(health, stall_s=settings.watchdog.stall_s))
        feed = await stack.enter_async_context(ChangeFeed(settings.postgres.url))
        projecting: list[Callable[[], Coroutine[None, None, None]]] = []
        targets: dict[str, RedisTarget | DynamoTarget] = {}
        for projection in settings.projections:
            target = targets[projection.name] = target_of(projection)
            await stack.enter_async_context(target)
            projector = Projector(
                projection_of(settings, projection), feed=feed, target=target, metrics=metrics, health=health
            )
            table = target if create_tables and isinstance(target, DynamoTarget) else None
            is_alone = until_applied or len(names) == 1
            projecting.append(partial(_project, projector, table, projection.name, health, is_alone=is_alone))
        working = asyncio.create_task(_work(projecting, feed, metrics, health, targets if until_applied else None))
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, working.cancel)
        with suppress(asyncio.CancelledError):
            await working
    log.info("projectors_stopped")


async def _project(
    projector: Projector, table: DynamoTarget | None, name: str, health: Health, *, is_alone: bool
) -> None:
    """Goes on for ever. Where a person has to act for this target, the others must not wait for that."""
    while True:
        try:
            if table is not None:
                await until_available(health, f"projection {name}", table.create_table)
                log.info("projection_table_ready", projection=name)
            await projector.run()
        except StoreRefusedError as exc:
            if is_alone:
                raise
            health.check_failed(f"projection {name}", str(exc))
            log.warning("projection_refused", projection=name, why=str(exc), retry_after_s=REFUSED_AGAIN_S)
            await asyncio.sleep(REFUSED_AGAIN_S)


async def _check(health: Health, feed: ChangeFeed) -> None:
    """Whether PostgreSQL answers, apart from what the projections say: theirs may be the target's fault. Never ends."""
    while True:
        await ask_store(health, feed.next_xid)
        await asyncio.sleep(CHECK_EVERY_S)


async def _work(
    projecting: Sequence[Callable[[], Coroutine[None, None, None]]],
    feed: ChangeFeed,
    metrics: ProjectionMetrics,
    health: Health,
    until: Mapping[str, AuditableTarget] | None,
) -> None:
    await until_available(health, "postgres", feed.require_schema)
    log.info("projectors_started", projections=len(projecting))
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(measure_loop_lag(metrics), name="loop-lag")]
        beside.append(tasks.create_task(show_life(health), name="life"))
        beside.append(tasks.create_task(_check(health, feed), name="postgres-check"))
        beside += [tasks.create_task(run()) for run in projecting]
        if until is not None:
            await until_in(feed, health, until)
            for task in beside:
                task.cancel()
