"""A database that was dumped and restored elsewhere: transaction ids of one server order nothing on another."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local.postgres import Postgres, programs
from deploy.local.servers import start_postgres
from deploy.local.valkey import Valkey
from stores.errors import StoreRefusedError
from stores.postgres.migrating import STAMPS, migrate, missing_migrations
from stores.postgres.writing import PostgresStore
from tests.projection_ground import Ground, a_ground, refs
from tests.worker_process import eventually


@pytest.fixture
def another_server(tmp_path: Path) -> Iterator[Postgres]:
    server = start_postgres(tmp_path)
    yield server
    server.stop()


def copied(dsn: str, to: str) -> None:
    dump = subprocess.run([programs() / "pg_dump", "--no-owner", dsn], check=True, capture_output=True)
    options = ["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", to]
    subprocess.run([programs() / "psql", *options], input=dump.stdout, check=True, stdout=subprocess.DEVNULL)


async def spend_transactions(dsn: str) -> None:
    """So that ids of this server are in the future of another one."""
    session = await asyncpg.connect(dsn)
    for _ in range(3_000):
        await session.execute("SELECT pg_current_xact_id()")
    await session.close()


async def test_a_restored_database_is_refused_until_its_changes_are_stamped_anew(
    ground: Ground, valkey: Valkey, another_server: Postgres
) -> None:
    await spend_transactions(ground.dsn)
    await ground.put("a", "b", "leaver")
    await ground.put("leaver", included=False)
    projector = await ground.project()
    await ground.caught_up()
    dsn = another_server.dsn
    copied(ground.dsn, dsn)
    await ground.put("since")
    await ground.caught_up()
    projector.cancel()
    await asyncio.wait({projector})

    with pytest.raises(StoreRefusedError, match="restored from a dump"):
        async with PostgresStore(dsn, pool_max_size=1) as store:
            await store.require_schema()
    assert await missing_migrations(dsn) == [STAMPS]
    assert await migrate(dsn) == [STAMPS]
    assert await missing_migrations(dsn) == await migrate(dsn) == []

    async with a_ground(dsn, valkey) as restored:
        restored.prefix = ground.prefix
        await restored.stored()
        await restored.project()
        await restored.caught_up()
        await eventually(restored.synchronized_on)
        assert await restored.members() == refs("a", "b")  # whoever joined since comes again from Kafka
        await restored.put("later")
        await restored.put("a", included=False)
        await restored.caught_up()
        assert await restored.members() == refs("b", "later")
        counts = await asyncpg.connect(dsn)
        assert await counts.fetchval("SELECT included_count FROM segment") == 2
        await counts.close()
