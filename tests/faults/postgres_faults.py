"""Faults of PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil

import asyncpg

from deploy.local.processes import HOST
from tests.faults.ground import Ground, as_superuser, disk_fault, fault, hold, insisting, locked, superuser
from tests.faults.standby import Standby


@fault
async def postgres_crashed(ground: Ground) -> None:
    """Without a checkpoint, so that it has to recover."""
    async with ground.postgres_server:
        await asyncio.to_thread(ground.postgres.stop, "immediate")
        await hold(ground)
        await asyncio.to_thread(ground.postgres.restart)


@fault
async def postgres_frozen(ground: Ground) -> None:
    """A machine that stands still."""
    async with ground.postgres_server:
        ground.postgres.suspend()
        await hold(ground)
        ground.postgres.resume()


@fault
async def postgres_failed_over(ground: Ground) -> None:
    """The primary is gone, and its synchronous standby takes over, at another address behind the same name."""
    async with ground.postgres_server:
        primary = ground.postgres
        folder = ground.postgres_disk.folder / f"standby-{primary.port}"
        standby = Standby(folder, primary)
        await insisting(lambda: asyncio.to_thread(standby.start))
        sql = await superuser(ground)
        await standby.is_in_step(sql)
        await hold(ground)
        await asyncio.to_thread(primary.stop, "immediate")
        await standby.promote()
        ground.postgres = standby
        ground.postgres_proxy.lead_to(standby.port)
        shutil.rmtree(primary.folder)


@disk_fault
async def postgres_disk_full(ground: Ground) -> None:
    """First tables can't grow, then the log can't either, and the server ends."""
    async with ground.postgres_server:
        ground.postgres_disk.fill()
        if ground.random.random() < 0.5:
            await _demand_room_for_the_log(ground)
        await hold(ground)
        ground.postgres_disk.free()
        await _up_again(ground)


@fault
async def postgres_read_only(ground: Ground) -> None:
    """What a connection to the old primary meets after a failover."""
    async with ground.postgres_server:
        await as_superuser(ground, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        await hold(ground)
        await as_superuser(ground, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


@fault
async def postgres_sessions_ended(ground: Ground) -> None:
    """An operator, or a pooler, ends all sessions, three times."""
    for _ in range(3):
        await as_superuser(
            ground, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cohort-sync'"
        )
        await asyncio.sleep(ground.random.uniform(0.1, 1))


@fault
async def rows_locked(ground: Ground) -> None:
    """Somebody works on the table by hand and takes their time."""
    async with locked(ground):
        await hold(ground)


async def _demand_room_for_the_log(ground: Ground) -> None:
    try:
        sql = await superuser(ground)
        await sql.execute("SELECT pg_switch_wal()")
        await sql.close(timeout=5)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        pass  # it ends by that


async def _up_again(ground: Ground) -> None:
    async def up() -> None:
        if not ground.postgres.running:
            await asyncio.to_thread(ground.postgres.restart)
        sql = await asyncpg.connect(f"postgresql://postgres@{HOST}:{ground.postgres.port}/postgres", timeout=5)
        await sql.close(timeout=5)

    await insisting(up)
