"""Real servers for the tests: started once, on free ports, stopped by process id; a database for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from deploy.local.dynamodb import CREDENTIALS, DynamoDb
from deploy.local.servers import Kafka, Postgres, start_kafka, start_postgres
from deploy.local.valkey import Valkey, ValkeyCluster
from stores.postgres.migrating import migrate
from tests.gateway import GatewayUnderTest
from tests.projection_ground import Ground, a_ground
from tests.stores import MemoryStoreUnderTest, PostgresStoreUnderTest, StoreUnderTest
from tests.targets import ClusterUnderTest, DynamoUnderTest, RedisUnderTest, TargetUnderTest
from tests.worker_process import Bench

# How long an example takes says how busy the machine is; a hang is what pytest's timeout is for.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def no_configuration_around() -> Iterator[None]:
    """`make up` has one exported, which commands without `--config` would find."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("COHORT_SYNC_CONFIG", raising=False)
        yield


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    server = start_kafka(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = start_postgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def dynamodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DynamoDb]:
    """A DynamoDB, and in the environment what its clients need."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        server = DynamoDb(tmp_path_factory.mktemp("dynamodb")).start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with ValkeyCluster(tmp_path_factory.mktemp("valkey-cluster")).start() as cluster:
        yield cluster


@asynccontextmanager
async def a_database(postgres: Postgres) -> AsyncIterator[str]:
    """The DSN of a new database without a schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres.dsn)
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{postgres.dsn.rsplit('/', 1)[0]}/{name}"
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture
async def empty_database(postgres: Postgres) -> AsyncIterator[str]:
    """The DSN of a new database without a schema."""
    async with a_database(postgres) as dsn:
        yield dsn


@pytest.fixture
async def database(empty_database: str) -> str:
    """The DSN of a new database with the schema."""
    await migrate(empty_database)
    return empty_database


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[StoreUnderTest]:
    """Each segment store in turn."""
    if request.param == "memory":
        yield MemoryStoreUnderTest()
        return
    async with a_database(postgres) as dsn:
        await migrate(dsn)
        async with PostgresStoreUnderTest(dsn) as postgres_store:
            yield postgres_store


@pytest.fixture
async def ground(database: str, valkey: Valkey) -> AsyncIterator[Ground]:
    """A database with a projection to a Valkey that others use too."""
    async with a_ground(database, valkey) as own:
        yield own


@pytest.fixture
async def alone(database: str, tmp_path: Path) -> AsyncIterator[Ground]:
    """The same with a Valkey of its own, to break."""
    with Valkey(tmp_path).start() as own_valkey:
        async with a_ground(database, own_valkey) as own:
            yield own


@pytest.fixture(params=["valkey", "valkey_cluster", "dynamodb"])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[TargetUnderTest]:
    """Each kind of target in turn."""
    kinds = {"valkey": RedisUnderTest, "valkey_cluster": ClusterUnderTest, "dynamodb": DynamoUnderTest}
    async with kinds[request.param](request.getfixturevalue(request.param)) as opened:
        yield opened


@pytest.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """A server that this test may break."""
    server = start_postgres(tmp_path / "postgres")
    await migrate(server.dsn)
    yield server
    server.stop()


@pytest.fixture
async def bench(kafka: Kafka, database: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Topics, a database and a configuration of this test's own, and the workers that it starts."""
    async with Bench(kafka.bootstrap_servers, database, tmp_path) as own:
        yield own


@pytest.fixture
async def gateway(bench: Bench) -> AsyncIterator[GatewayUnderTest]:
    """A gateway, once it is started, with topics and a database of this test's own."""
    async with GatewayUnderTest(bench) as own:
        yield own
