"""Faults of the workers themselves, at any moment and at the moments that matter."""

from __future__ import annotations

import asyncio
import signal

import yaml

from tests.faults.blockable_worker import BLOCK, BLOCKED_S
from tests.faults.ground import SESSION_TIMEOUT_S, Ground, as_superuser, fault, hold, insisting, locked, superuser
from tests.faults.kafka_faults import unwritable_dead_letters
from tests.worker_process import CommandProcess, eventually

MIGRATION_TABLES = ("topic", "segment", "membership", "clearing")
DESCRIPTION = """
    SELECT format('%s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod))
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace AND NOT attisdropped ORDER BY 1
"""


@fault
async def worker_killed(ground: Ground) -> None:
    """As by the kernel when memory is short; Kubernetes starts another."""
    await ground.workers.replace(ground.workers.one(ground.random), signal.SIGKILL)


@fault
async def worker_killed_between_write_and_commit(ground: Ground) -> None:
    """Nothing reaches Kafka, so what is written meanwhile is not committed."""
    ground.kafka_proxy.hold()
    await asyncio.sleep(2)
    await ground.workers.replace(ground.workers.one(ground.random), signal.SIGKILL)
    ground.kafka_proxy.heal()


@fault
async def worker_killed_in_dead_letter_production(ground: Ground) -> None:
    """Its dead letters are sent and not acknowledged."""
    async with unwritable_dead_letters(ground):
        await asyncio.sleep(2)
        await ground.workers.replace(ground.workers.one(ground.random), signal.SIGKILL)


@fault
async def worker_killed_in_a_flush_on_revoke(ground: Ground) -> None:
    """A batch waits for a lock while the partitions are given out anew."""
    async with locked(ground):
        await asyncio.sleep(1)
        guest = ground.workers.start_guest()
        await asyncio.sleep(2)
        await ground.workers.replace(ground.workers.one(ground.random), signal.SIGKILL)
    await ground.workers.stop_guest(guest, signal.SIGTERM)


@fault
async def worker_asked_to_stop(ground: Ground) -> None:
    """A roll-out: it must end by itself, in time and with 0."""
    await ground.workers.replace(ground.workers.one(ground.random), signal.SIGTERM)


@fault
async def worker_asked_to_stop_with_the_store_away(ground: Ground) -> None:
    """It can't finish its batch, and must end in time all the same."""
    ground.postgres_proxy.cut()
    ending = asyncio.create_task(ground.workers.replace(ground.workers.one(ground.random), signal.SIGTERM))
    await hold(ground)
    ground.postgres_proxy.heal()
    await ending


@fault
async def worker_frozen_past_its_session(ground: Ground) -> None:
    """A zombie: it comes back with what it had read, when others have read it too."""
    worker = ground.workers.one(ground.random)
    worker.freeze()
    await asyncio.sleep(SESSION_TIMEOUT_S + ground.random.uniform(1, 4))
    worker.thaw()


@fault
async def event_loop_blocked(ground: Ground) -> None:
    """Some code holds the loop past the session, while the process and its threads go on."""
    worker = ground.workers.one(ground.random)
    worker.is_frozen = True
    worker.process.send(BLOCK)
    await asyncio.sleep(BLOCKED_S + 1)
    worker.is_frozen = False


@fault
async def rebalance_storm(ground: Ground) -> None:
    """A member joins or leaves every second."""
    for _ in range(4):
        guest = ground.workers.start_guest()
        await asyncio.sleep(1)
        await ground.workers.stop_guest(guest, ground.random.choice((signal.SIGTERM, signal.SIGKILL)))


@fault
async def migration_killed(ground: Ground) -> None:
    """On a database of its own, in the middle of a migration, and run again: the schema is as if nothing had been."""
    name = f"migration_{ground.random.getrandbits(32)}"
    config = ground.folder / f"{name}.yaml"
    port = ground.postgres.port
    settings = yaml.safe_load(ground.workers.config.read_text())
    settings["postgres"]["dsn"] = f"postgresql://cohort_sync@127.0.0.1:{port}/{name}"
    config.write_text(yaml.safe_dump(settings))
    async with ground.postgres_server:
        await as_superuser(ground, f"CREATE DATABASE {name} OWNER cohort_sync")
        await _kill_migration(ground, name)
        migrating = CommandProcess("migrate", config=config, log=ground.folder / f"{name}.log")
        if await migrating.wait():
            ground.wrong.append(f"migrate after a kill: {migrating.log_file.read_text()[-500:]}")
        if await _schema(ground, name) != await _schema(ground, "cohort_sync"):
            ground.wrong.append("migrate after a kill: another schema")
        await as_superuser(ground, f"DROP DATABASE {name} WITH (FORCE)")


async def _kill_migration(ground: Ground, name: str) -> None:
    """Kills it while it waits for a table that somebody else is just about to make."""
    # Two sessions: within a transaction PostgreSQL shows the activity as it was when first asked.
    maker, watcher = await superuser(ground, name), await superuser(ground)
    making = maker.transaction()
    await making.start()
    await maker.execute(f"CREATE TABLE {ground.random.choice(MIGRATION_TABLES)} ()")
    migrating = CommandProcess("migrate", config=ground.folder / f"{name}.yaml", log=ground.folder / f"{name}.log")
    waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1)"
    await eventually(lambda: watcher.fetchval(waits, name))
    migrating.kill()
    await making.rollback()
    for sql in (maker, watcher):
        await sql.close(timeout=5)


async def _schema(ground: Ground, database: str) -> list[str]:
    async def ask() -> list[str]:
        sql = await superuser(ground, database)
        found = [row[0] for row in await sql.fetch(DESCRIPTION)]
        await sql.close(timeout=5)
        return found

    return await insisting(ask)
