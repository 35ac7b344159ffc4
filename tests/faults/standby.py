"""A standby of PostgreSQL: a copy that follows its primary, and can take over."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from deploy.local.processes import HOST, ports_of
from deploy.local.servers import Postgres
from tests.worker_process import eventually

FOLLOWS_S = 30.0


class Standby(Postgres):
    """Follows the primary from its start on, until `promote`."""

    # Read-only as long as it follows, and without the last words once it is promoted.
    READY = "database system is ready to accept"

    def __init__(self, folder: Path, primary: Postgres) -> None:
        super().__init__(folder)
        self._primary = primary

    async def is_in_step(self, primary: asyncpg.Connection) -> None:
        """Returns once every commit waits for us, and we have all that were made before."""
        await primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await primary.execute("SELECT pg_reload_conf()")
        written = await primary.fetchval("SELECT pg_current_wal_lsn()")
        follows = "SELECT sync_state = 'sync' AND flush_lsn >= $1 FROM pg_stat_replication"
        await eventually(lambda: primary.fetchval(follows, written), FOLLOWS_S)

    async def promote(self) -> None:
        """From now on it is a primary."""
        sql = await asyncpg.connect(f"postgresql://postgres@{HOST}:{self.port}/postgres", timeout=10)
        await sql.execute("SELECT pg_promote()")
        await sql.close(timeout=5)

    def _prepare(self) -> None:
        (self.port,) = ports_of(self.folder, 1)
        if not self._whole.exists():
            address = (f"--host={HOST}", f"--port={self._primary.port}", "--username=postgres")
            self._run("pg_basebackup", *address, f"--pgdata={self._data}", "--checkpoint=fast", "--write-recovery-conf")
            self._whole.touch()
