"""The sweeper: turns what drains and replace sessions put out into tombstones, beside the flow and in small steps.

Whoever reads the store sees them as out from the clearing on; counts and the change feed follow the sweep. It also
forgets rejected members that are a month old.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from stores.errors import BatchRejectedError, StoreUnavailableError
from stores.postgres.writing import PostgresStore

log = structlog.get_logger(__name__)

SWEEP_EVERY_S = 1.0
LAST_SWEEP_S = 10.0
"""So long a worker that has caught up waits for transactions of others, so that what it leaves behind is all swept."""


async def sweep(store: PostgresStore) -> None:
    """Sweeps whatever there is, for ever. While the store is away, which others tell, there is nothing to do."""
    while True:
        try:
            with suppress(StoreUnavailableError):
                await sweep_once(store)
                await store.forget_old_rejects()
        except BatchRejectedError as exc:  # a trigger that the database's owner added
            log.warning("sweep_refused", sqlstate=exc.sqlstate)
        await asyncio.sleep(SWEEP_EVERY_S)


async def sweep_once(store: PostgresStore) -> None:
    """Finishes the sweeps that may begin now."""
    for each in await store.sweeps():
        rest = await store.sweep(each)
        while rest is not None:
            await asyncio.sleep(0)
            rest = await store.sweep(rest)


async def finish_sweeps(store: PostgresStore) -> None:
    """Sweeps until no clearing waits, also those that must wait for a transaction of somebody else."""
    try:
        async with asyncio.timeout(LAST_SWEEP_S):
            while await store.unswept():
                await sweep_once(store)
                await asyncio.sleep(0.1)
    except (TimeoutError, StoreUnavailableError, BatchRejectedError) as exc:
        log.warning("sweep_left_to_the_next_worker", cause=type(exc).__name__)
