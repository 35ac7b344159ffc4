"""A PostgreSQL of its own that takes passwords over TLS only, from roles that the tests make."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import trustme

from deploy.local.postgres import Postgres
from deploy.local.processes import HOST
from tests.postgres_with_tls import server_with_tls

PASSWORD = "first"

RULES = f"""
host    all postgres,cohort_sync {HOST}/32 trust
hostssl all all                  {HOST}/32 scram-sha-256
"""


class SecurePostgres(Postgres):
    """Roles beside the two that it begins with show a password, over TLS, under the certificate of `HOST`."""

    def _prepare(self) -> None:
        super()._prepare()
        self.authority = trustme.CA()
        self.cafile = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.cafile))
        issued = self.authority.issue_cert(HOST)
        issued.cert_chain_pems[0].write_to_path(str(self._certfile))
        self._keyfile.touch(0o600)
        issued.private_key_pem.write_to_path(str(self._keyfile))
        (self._data / "pg_hba.conf").write_text(RULES)

    def _program(self) -> str:
        return str(server_with_tls())

    def _settings(self) -> dict[str, str]:
        files = {"ssl_cert_file": str(self._certfile), "ssl_key_file": str(self._keyfile)}
        return super()._settings() | {"ssl": "on", **files}

    def dsn_of(self, role: str, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{role}:{password}@{HOST}:{self.port}/{database}"

    async def as_superuser(self, *statements: str) -> None:
        session = await asyncpg.connect(f"postgresql://postgres@{HOST}:{self.port}/postgres")
        for statement in statements:
            await session.execute(statement)
        await session.close()

    async def make_role(self, role: str) -> None:
        await self.as_superuser(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")

    @property
    def _certfile(self) -> Path:
        return self.folder / "server.crt"

    @property
    def _keyfile(self) -> Path:
        return self.folder / "server.key"
