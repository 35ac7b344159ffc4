"""A PostgreSQL that shows who it is and asks who we are, and roles that may do their part and nothing else."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self, get_args

import asyncpg
import pytest
import trustme
import yaml

from deploy.local.processes import HOST
from deploy.local.servers import Kafka, Postgres
from deploy.local.valkey import Valkey
from stores.errors import StoreRefusedError
from stores.postgres.change_feed import ChangeFeed
from stores.postgres.migrating import Part, grant, migrate, missing_migrations
from stores.postgres.own_schema import REVOKE
from stores.postgres.reading import postgres_reader
from tests.gateway import GatewayUnderTest, a_batch
from tests.integration.test_projection import InRedis
from tests.secure_postgres import PASSWORD, SecurePostgres
from tests.worker_process import Bench, eventually, webhook

PARTS: tuple[Part, ...] = get_args(Part)
SEGMENT = "/api/v2/segments/web/production/amplitude-c1"
DRAIN = {"action_type": "segment.users.drain", "data": {"segment": {"id": "c3"}}}


@pytest.fixture(scope="module")
def secure_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecurePostgres]:
    with SecurePostgres(tmp_path_factory.mktemp("secure-postgres")).start() as server:
        yield server


class Roles:
    """A database of this test's own, its owner, who migrates, and a role for each part of cohort-sync."""

    def __init__(self, server: SecurePostgres) -> None:
        self._server = server
        self._suffix = uuid.uuid4().hex[:8]
        self.database = f"test_{self._suffix}"

    async def __aenter__(self) -> Self:
        for part in ("migrator", *PARTS):
            await self._server.make_role(self.role(part))
        await self._server.as_superuser(
            f"CREATE DATABASE {self.database} OWNER {self.role('migrator')}",
            f"GRANT pg_read_all_stats TO {self.role('worker')}",
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.as_superuser(f"DROP DATABASE {self.database} WITH (FORCE)")

    def role(self, part: str) -> str:
        return f"{part}_{self._suffix}"

    def dsn(self, part: str, password: str = PASSWORD) -> str:
        return self._server.dsn_of(self.role(part), self.database, password)

    def settings(self, part: str) -> dict[str, str]:
        """As this role, to nobody but the right server."""
        return {"dsn": self.dsn(part), "sslmode": "verify-full", "sslrootcert": str(self._server.cafile)}

    async def as_superuser(self, *statements: str) -> None:
        """In the database of this test."""
        await _do(f"postgresql://postgres@{HOST}:{self._server.port}/{self.database}", statements)

    async def do(self, part: str, *statements: str) -> None:
        await _do(self.dsn(part), statements)

    async def migrate(self, bench: Bench) -> None:
        """As the README has it."""
        bench.settings["postgres"] = self.settings("migrator")
        grants = [argument for part in PARTS for argument in ("--grant", part, self.role(part))]
        done = await bench.run("migrate", *grants)
        assert done.returncode == 0, done.stderr
        assert f"GRANT SELECT, INSERT ON environment TO {self.role('worker')}" in done.stdout.decode()


async def _do(dsn: str, statements: Sequence[str]) -> None:
    session = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await session.execute(statement)
    finally:
        await session.close()


@pytest.fixture
async def roles(secure_postgres: SecurePostgres) -> AsyncIterator[Roles]:
    async with Roles(secure_postgres) as made:
        yield made


@pytest.fixture
async def own(kafka: Kafka, roles: Roles, tmp_path: Path) -> AsyncIterator[Bench]:
    """Migrated; it looks into the database as its owner."""
    async with Bench(kafka.bootstrap_servers, roles.dsn("migrator"), tmp_path) as bench:
        await roles.migrate(bench)
        yield bench


async def test_only_the_right_server_under_its_right_name_is_believed(
    own: Bench, roles: Roles, postgres: Postgres
) -> None:
    right = roles.settings("worker")
    other = own.folder / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))

    async def found(settings: dict[str, str]) -> str | None:
        own.settings["postgres"] = settings
        checked = await own.run("config", "check", "--json")
        assert PASSWORD.encode() not in checked.stdout + checked.stderr
        [why] = [each["why"] for each in map(json.loads, checked.stdout.splitlines()) if each["check"] == "PostgreSQL"]
        return None if why is None else str(why)

    assert await found(right) is None
    assert "certificate is not trusted" in str(await found(right | {"sslrootcert": str(other)}))
    by_another_name = right["dsn"].replace(f"@{HOST}", "@localhost")
    assert "Hostname mismatch" in str(await found(right | {"dsn": by_another_name}))
    assert "does not speak TLS" in str(await found(right | {"dsn": postgres.dsn}))


@pytest.mark.timeout(300)  # it starts every part and most commands
async def test_every_part_can_do_its_work_as_its_own_role(
    own: Bench, roles: Roles, secure_postgres: SecurePostgres, valkey: Valkey
) -> None:
    own.settings["feeds"].append({"name": "heap", "topics": [own.segment_topic + "-heap"], "format": "heap-inbound"})
    own.settings["feeds"][-1]["environment"] = "production"
    await own.create_topics({own.segment_topic + "-heap": 1})
    projected = InRedis(own, valkey)

    def become(part: Part) -> None:
        own.settings["postgres"] = roles.settings(part)

    async with GatewayUnderTest(own) as gateway:
        become("gateway")
        await gateway.start()
        become("operator")
        token = await gateway.token()
        batch = a_batch("u1", "u2", "bad")
        batch["batch"][2]["userId"] = 1.5  # type: ignore[index]
        assert (await gateway.sync(batch, token)).status_code == 204
        await own.publish(own.webhook_topic, webhook("c2", "u1", "u3"))
        await own.publish(
            own.segment_topic + "-heap", {"action_type": "segment.users.sync", "data": _heap("u1")}, DRAIN
        )

        become("worker")
        await own.catch_up()
        assert await own.members("amplitude-c1") == {"u1": True, "u2": True}
        assert await own.members("heap-inbound-c3") == {"u1": False}

        become("projector")
        await projected.project()
        assert await projected.references("u1") == {"amplitude-c1.g1", "amplitude-c2.g1"}

        said = {"authorization": token}
        assert (await gateway.client.get(SEGMENT, headers=said)).status_code == 200
        assert (await gateway.client.get(f"{SEGMENT}/contexts/u1", headers=said)).status_code == 200
        [rejected] = (await gateway.client.get(f"{SEGMENT}/rejected", headers=said)).json()["items"]
        assert rejected["reason"] == "context_key_invalid"
        renamed = [{"op": "replace", "path": "/name", "value": "Ours"}]
        assert (await gateway.client.patch(SEGMENT, json=renamed, headers=said)).status_code == 200

    become("operator")
    [token_id] = [each["id"] for each in await own.rows("tokens", "list")]
    for command in (
        ["config", "check"],
        ["status"],
        ["segments"],
        ["segments", "set-generation", "amplitude-c2", "1"],
        ["members", "amplitude-c1", "--all"],
        ["explain", "amplitude-c1", "u1", "--record"],
        ["dead-letters", "list"],
        ["dead-letters", "replay"],
        ["sdk-data"],
        ["tokens", "revoke", token_id],
        ["erase", "u3"],
    ):
        done = await own.run(*command)
        assert done.returncode == 0, (command, done.stderr)
    projector = projected.start()
    for command in (["audit", "sdk", "--repair"], ["rebuild", "sdk"]):
        done = await own.run(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert await projector.stop() == 0

    become("worker")
    worker = own.start_worker()
    await worker.logged("worker_started")
    await secure_postgres.as_superuser(f"GRANT {roles.role('worker')} TO {roles.role('operator')}")
    become("operator")
    old_cell = own.folder / "old-cell.yaml"  # the same rows, for the rights to them are what counts here
    dsn = own.settings["postgres"]["dsn"]
    other_dsn = f"{dsn}{'&' if '?' in dsn else '?'}application_name=old-cell"
    old_cell.write_text(yaml.safe_dump(own.settings | {"postgres": own.settings["postgres"] | {"dsn": other_dsn}}))
    copied = await own.run("copy", "production", "--from", str(old_cell))
    assert copied.returncode == 0, copied.stderr
    assert await worker.stop() == 0


def _heap(user: str) -> dict[str, object]:
    return {"segment": {"id": "c3", "name": "C"}, "add": [{"id": user}]}


@pytest.mark.parametrize("part", PARTS)
async def test_no_part_may_change_the_schema_or_do_the_work_of_another(own: Bench, roles: Roles, part: Part) -> None:
    session = await asyncpg.connect(roles.dsn(part))
    statements = [
        "CREATE TABLE mine ()",
        "CREATE SCHEMA mine",
        "ALTER TABLE membership ADD COLUMN mine int",
        "DROP TABLE membership",
        "TRUNCATE membership",
        "CREATE INDEX ON membership (context_key)",
        "CREATE OR REPLACE FUNCTION horizon() RETURNS xid8 LANGUAGE sql AS 'SELECT NULL::xid8'",
        "DELETE FROM schema_migration",
        "UPDATE erasure_salt SET salt = ''",
    ]
    if part != "operator":
        statements += ["DELETE FROM membership", "DELETE FROM erasure", "INSERT INTO access_token DEFAULT VALUES"]
    if part in ("gateway", "projector"):
        statements += ["UPDATE membership SET included = true", "UPDATE segment SET generation = 2"]
    if part in ("worker", "projector"):
        statements += ["SELECT * FROM access_token"]

    for statement in statements:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute(statement)
    await session.close()
    assert await own.sql.fetchval("SELECT count(*) FROM schema_migration")


async def test_a_password_that_is_replaced_while_it_runs_is_used_at_the_next_connection(
    own: Bench, roles: Roles, secure_postgres: SecurePostgres, valkey: Valkey
) -> None:
    own.settings["postgres"] = {}
    projected = InRedis(own, valkey)
    files = {}
    for part in ("worker", "projector"):
        files[part] = own.folder / f"dsn-of-{part}"
        files[part].write_text(roles.dsn(part) + "\n")
    own.settings["postgres"] = {"dsn_file": str(files["worker"])}
    worker = own.start_worker()
    await worker.logged("worker_started")
    own.settings["postgres"] = {"dsn_file": str(files["projector"])}
    projector = projected.start()
    await own.publish(own.webhook_topic, webhook("c1", "u1"))

    async def is_projected(key: str) -> bool:
        return bool(await projected.references(key))

    await eventually(lambda: is_projected("u1"))
    for part, file in files.items():
        role = roles.role(part)
        file.write_text(roles.dsn(part, "second"))
        await secure_postgres.as_superuser(
            f"ALTER ROLE {role} PASSWORD 'second'",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'",
        )
    await own.publish(own.webhook_topic, webhook("c1", "u2"))

    await eventually(lambda: is_projected("u2"))
    assert (worker.returncode, projector.returncode) == (None, None)
    projected.close()


AS_BEFORE_15 = "GRANT CREATE ON SCHEMA public TO PUBLIC"
PLANTED = """
    CREATE FUNCTION format(text, name, text) RETURNS text LANGUAGE sql
    AS $$ SELECT pg_catalog.format('GRANT ALL ON ALL TABLES IN SCHEMA public TO %I', $3) $$
"""
PLANTED_OPERATOR = """
    CREATE FUNCTION f(text, name) RETURNS bool LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR = (FUNCTION = f, LEFTARG = text, RIGHTARG = name)
"""


async def test_nobody_else_may_create_in_the_schema_of_a_database_that_was_born_before_postgresql_15(
    roles: Roles,
) -> None:
    await roles.as_superuser(AS_BEFORE_15)
    await roles.do("worker", "CREATE TABLE mine ()", "DROP TABLE mine")
    owner = roles.dsn("migrator")

    assert (await missing_migrations(owner))[0] == REVOKE
    assert (await migrate(owner))[0] == REVOKE
    assert await missing_migrations(owner) == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await roles.do("worker", "CREATE TABLE mine ()")
    await roles.as_superuser(AS_BEFORE_15)
    await grant(owner, "worker", roles.role("worker"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await roles.do("worker", "CREATE TABLE mine ()")


async def test_an_owner_of_the_tables_who_may_not_close_the_schema_is_told_who_has_to(roles: Roles) -> None:
    await roles.as_superuser(AS_BEFORE_15, "ALTER SCHEMA public OWNER TO postgres")

    with pytest.raises(StoreRefusedError, match="postgres: REVOKE CREATE ON SCHEMA public FROM PUBLIC"):
        await migrate(roles.dsn("migrator"))


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        (PLANTED, r"function format\(text,name,text\) of worker_"),
        (PLANTED_OPERATOR, r"operator public.=\(text,name\) of worker_"),
        ("CREATE TABLE schema_migration (name text, applied_at text)", "table schema_migration of worker_"),
    ],
)
async def test_what_another_role_has_put_in_place_of_postgresqls_own_is_not_run_by_the_owner(
    roles: Roles, planted: str, name: str
) -> None:
    await roles.as_superuser(AS_BEFORE_15)
    await roles.do("worker", planted)

    with pytest.raises(StoreRefusedError, match=name):
        await migrate(roles.dsn("migrator"))
    with pytest.raises(StoreRefusedError, match=name):
        await grant(roles.dsn("migrator"), "worker", roles.role("worker"))


async def test_a_function_that_a_worker_has_planted_elsewhere_in_the_path_is_run_by_nobody(roles: Roles) -> None:
    role = roles.role("migrator")
    await roles.as_superuser(
        AS_BEFORE_15,
        f"CREATE SCHEMA ours AUTHORIZATION {role}",
        *(f"ALTER ROLE {roles.role(part)} SET search_path = ours, public" for part in ("migrator", *PARTS)),
    )
    await migrate(roles.dsn("migrator"))
    await roles.do("worker", PLANTED.replace("FUNCTION format", "FUNCTION public.format"))

    for part in PARTS:
        granted = await grant(roles.dsn("migrator"), part, roles.role(part))
        assert not any("ALL TABLES" in statement for statement in granted)
    async with postgres_reader(roles.dsn("operator")) as reader:
        assert await reader._session.fetchval("SHOW search_path") == "ours"
    async with ChangeFeed(roles.dsn("projector")) as feed:
        for _ in range(2):  # also once a session of the pool was given back
            async with feed.session() as session:
                assert await session.fetchval("SHOW search_path") == "ours"


@pytest.mark.parametrize(
    ("excess", "why"),
    [
        ("GRANT CREATE ON SCHEMA public TO {role}", "has CREATE ON SCHEMA public"),
        ("GRANT CREATE ON DATABASE {database} TO {role}", "has CREATE ON DATABASE"),
    ],
)
async def test_a_role_that_could_plant_something_gets_no_grants(roles: Roles, excess: str, why: str) -> None:
    await migrate(roles.dsn("migrator"))
    await roles.as_superuser(excess.format(role=roles.role("worker"), database=roles.database))

    with pytest.raises(StoreRefusedError, match=why):
        await grant(roles.dsn("migrator"), "worker", roles.role("worker"))


async def test_a_schema_under_the_owners_name_that_another_role_has_made_is_not_taken_for_ours(roles: Roles) -> None:
    await roles.as_superuser(f"GRANT CREATE ON DATABASE {roles.database} TO {roles.role('worker')}")
    await roles.do(
        "worker",
        f"CREATE SCHEMA {roles.role('migrator')}",
        f"GRANT ALL ON SCHEMA {roles.role('migrator')} TO {roles.role('migrator')}",
    )

    with pytest.raises(StoreRefusedError, match=r"schema migrator_.* of worker_"):
        await migrate(roles.dsn("migrator"))


async def test_an_owner_may_also_be_the_one_who_runs_it(roles: Roles) -> None:
    owner = roles.dsn("migrator")
    await migrate(owner)

    assert await grant(owner, "worker", roles.role("migrator"))


async def test_a_dsn_that_is_half_written_or_not_yet_right_is_waited_for(
    own: Bench, roles: Roles, secure_postgres: SecurePostgres, valkey: Valkey
) -> None:
    projected = InRedis(own, valkey)
    files = {part: own.folder / f"dsn-of-{part}" for part in ("worker", "projector", "gateway")}
    for part, file in files.items():
        file.write_text(roles.dsn(part))
    async with GatewayUnderTest(own) as gateway, AsyncExitStack() as stack:
        stack.callback(projected.close)
        own.settings["postgres"] = {"dsn_file": str(files["gateway"])}
        await gateway.start()
        own.settings["postgres"] = {"dsn_file": str(files["worker"])}
        worker = own.start_worker()
        await worker.logged("worker_started")
        own.settings["postgres"] = {"dsn_file": str(files["projector"])}
        projector = projected.start()
        await own.publish(own.webhook_topic, webhook("c1", "u1"))
        await eventually(lambda: projected.references("u1"))
        processes = (worker, projector, gateway.process)

        for part, file in files.items():
            role = roles.role(part)
            await secure_postgres.as_superuser(f"ALTER ROLE {role} PASSWORD 'zweites'")
            file.write_text(roles.dsn(part, "zweites").partition("eites@")[0])
            await secure_postgres.as_superuser(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
            )
        await own.publish(own.webhook_topic, webhook("c1", "u2"))
        for process in processes:
            told = await process.logged("secret_file_not_taken")
            assert told["setting"] == "dsn_file"

        async def both_are_told_why() -> bool:  # the gateway believes its tokens for a minute
            told = [(await process.get("/readyz")).text for process in (worker, projector)]
            return all("password is wrong" in text for text in told)

        await eventually(both_are_told_why)
        for part, file in files.items():
            file.write_text(roles.dsn(part, "zweites"))

        await eventually(lambda: projected.references("u2"))

        async def all_are_ready() -> bool:
            return all([(await process.get("/readyz")).status_code == 200 for process in processes])

        await eventually(all_are_ready)
        for process in processes:
            assert process.returncode is None
            assert ":first@" not in process.log_file.read_text()
            assert "zweites" not in process.log_file.read_text()


async def test_what_can_not_be_the_address_of_a_server_is_refused_at_the_start(roles: Roles) -> None:
    dsn = roles.dsn("worker").replace("127.0.0.1", "hunter..22")

    async with ChangeFeed(dsn) as feed:
        with pytest.raises(StoreRefusedError, match=r"postgres\.dsn") as refused:
            await feed.require_schema()
    assert "hunter" not in str(refused.value)
