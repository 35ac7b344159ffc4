"""What is broken, for how long, and how it is mended. A fault ends by itself: afterwards everything may recover."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple, Protocol, TypeVar

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from deploy.local.servers import Kafka, Postgres
from tests.faults.proxy import Proxy
from tests.faults.workers import Workers

SESSION_TIMEOUT_S = 6.0
INSISTED_S = 60.0

T = TypeVar("T")


class Ground(NamedTuple):
    """What a fault can lay hands on."""

    kafka: Kafka
    postgres: Postgres
    kafka_proxy: Proxy
    postgres_proxy: Proxy
    workers: Workers
    dead_letter_topic: str
    random: random.Random


class Fault(NamedTuple):
    """A fault by its name."""

    name: str
    run: Callable[[Ground], Awaitable[None]]


class _Act(Protocol):
    async def __call__(self, ground: Ground) -> None: ...


FAULTS: list[Fault] = []


def fault(act: _Act) -> _Act:
    """Adds it to the list, by its name."""
    FAULTS.append(Fault(getattr(act, "__name__", "fault"), act))
    return act


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
    await _configure_topic(ground, "min.insync.replicas", "2")
    await asyncio.sleep(2)
    await ground.workers.replace(ground.workers.one(ground.random), signal.SIGKILL)
    await _configure_topic(ground, "min.insync.replicas", "1")


@fault
async def worker_killed_in_a_flush_on_revoke(ground: Ground) -> None:
    """A batch waits for a lock while the partitions are given out anew."""
    async with _locked(ground):
        await asyncio.sleep(1)
        guest = ground.workers.start_guest()
        await asyncio.sleep(2)
        await ground.workers.replace(ground.workers.one(ground.random), signal.SIGKILL)
    await ground.workers.stop_guest(guest, signal.SIGTERM)


@fault
async def worker_asked_to_stop_with_the_store_away(ground: Ground) -> None:
    """It can't finish its batch, and must end in time all the same."""
    ground.postgres_proxy.cut()
    ending = asyncio.create_task(ground.workers.replace(ground.workers.one(ground.random), signal.SIGTERM))
    await _held(ground)
    ground.postgres_proxy.heal()
    await ending


@fault
async def worker_asked_to_stop(ground: Ground) -> None:
    """A roll-out: it must end by itself, in time and with 0."""
    await ground.workers.replace(ground.workers.one(ground.random), signal.SIGTERM)


@fault
async def worker_frozen_past_its_session(ground: Ground) -> None:
    """A zombie: it comes back with what it had read, when others have read it too."""
    worker = ground.workers.one(ground.random)
    worker.freeze()
    await asyncio.sleep(SESSION_TIMEOUT_S + ground.random.uniform(1, 4))
    worker.thaw()


@fault
async def rebalance_storm(ground: Ground) -> None:
    """A member joins or leaves every second."""
    for _ in range(4):
        guest = ground.workers.start_guest()
        await asyncio.sleep(1)
        await ground.workers.stop_guest(guest, ground.random.choice((signal.SIGTERM, signal.SIGKILL)))


@fault
async def broker_killed(ground: Ground) -> None:
    """And started again."""
    ground.kafka.kill()
    await _held(ground)
    await asyncio.to_thread(ground.kafka.restart)


@fault
async def broker_frozen(ground: Ground) -> None:
    """Its connections stay open, and nothing answers."""
    ground.kafka.suspend()
    await _held(ground)
    ground.kafka.resume()


@fault
async def postgres_crashed(ground: Ground) -> None:
    """Without a checkpoint, so that it has to recover."""
    await asyncio.to_thread(ground.postgres.stop, "immediate")
    await _held(ground)
    await asyncio.to_thread(ground.postgres.restart)


@fault
async def postgres_frozen(ground: Ground) -> None:
    """A machine that stands still."""
    ground.postgres.suspend()
    await _held(ground)
    ground.postgres.resume()


@fault
async def postgres_read_only(ground: Ground) -> None:
    """What a connection to the old primary meets after a failover."""
    await _as_superuser(ground, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    await _held(ground)
    await _as_superuser(ground, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


@fault
async def postgres_sessions_ended(ground: Ground) -> None:
    """An operator, or a pooler, ends all sessions, three times."""
    for _ in range(3):
        await _as_superuser(
            ground, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cohort-sync'"
        )
        await asyncio.sleep(ground.random.uniform(0.1, 1))


@fault
async def rows_locked(ground: Ground) -> None:
    """Somebody works on the table by hand and takes their time."""
    async with _locked(ground):
        await _held(ground)


@fault
async def dead_letter_topic_unwritable(ground: Ground) -> None:
    """Too few replicas in sync."""
    await _configure_topic(ground, "min.insync.replicas", "2")
    await _held(ground)
    await _configure_topic(ground, "min.insync.replicas", "1")


@fault
async def network_to_postgres_cut(ground: Ground) -> None:
    """Connections end, and can't be made."""
    await _proxied(ground, ground.postgres_proxy, Proxy.cut)


@fault
async def network_to_kafka_cut(ground: Ground) -> None:
    """Likewise."""
    await _proxied(ground, ground.kafka_proxy, Proxy.cut)


@fault
async def network_to_postgres_held(ground: Ground) -> None:
    """Half-open: what is sent is lost in silence."""
    await _proxied(ground, ground.postgres_proxy, Proxy.hold)


@fault
async def network_to_kafka_held(ground: Ground) -> None:
    """Likewise."""
    await _proxied(ground, ground.kafka_proxy, Proxy.hold)


@fault
async def network_slow(ground: Ground) -> None:
    """Each piece takes a tenth of a second more, both ways, on both."""

    def slow(proxy: Proxy) -> None:
        proxy.delay_s = 0.1

    async with AsyncExitStack() as both:
        for proxy in (ground.kafka_proxy, ground.postgres_proxy):
            slow(proxy)
            both.callback(proxy.heal)
        await _held(ground)


@fault
async def connections_reset(ground: Ground) -> None:
    """All of them, a few times."""
    for _ in range(5):
        ground.kafka_proxy.reset()
        ground.postgres_proxy.reset()
        await asyncio.sleep(ground.random.uniform(0.1, 1))


async def _held(ground: Ground) -> None:
    await asyncio.sleep(ground.random.uniform(1, 8))


async def _proxied(ground: Ground, proxy: Proxy, act: Callable[[Proxy], None]) -> None:
    act(proxy)
    await _held(ground)
    proxy.heal()


@asynccontextmanager
async def _locked(ground: Ground) -> AsyncIterator[None]:
    """Nobody else writes memberships, unless another fault ends the session."""
    sql = await _superuser(ground)
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await sql.execute("BEGIN")
        await sql.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
    yield
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await sql.close()


async def _as_superuser(ground: Ground, *statements: str) -> None:
    async def execute() -> None:
        sql = await _superuser(ground)
        try:
            for statement in statements:
                await sql.execute(statement)
        finally:
            await sql.close(timeout=5)

    await _insisting(execute)


async def _superuser(ground: Ground) -> asyncpg.Connection:
    dsn = ground.postgres.dsn.replace("cohort_sync@", "postgres@")
    return await _insisting(
        lambda: asyncpg.connect(dsn, timeout=10, server_settings={"default_transaction_read_only": "off"})
    )


async def _configure_topic(ground: Ground, name: str, value: str) -> None:
    async def configure() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=ground.kafka.bootstrap_servers)
        try:
            await admin.start()
            resource = ConfigResource(ConfigResourceType.TOPIC, ground.dead_letter_topic, configs={name: value})
            await admin.alter_configs([resource])
        finally:
            await admin.close()

    await _insisting(configure)


async def _insisting(act: Callable[[], Awaitable[T]]) -> T:
    """Tries until it succeeds: another fault may be at the same server."""
    async with asyncio.timeout(INSISTED_S):
        while True:
            try:
                return await act()
            except (OSError, KafkaError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.2)
