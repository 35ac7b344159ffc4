"""What is broken, for how long, and how it is mended. A fault ends by itself: afterwards everything may recover."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NamedTuple, Protocol

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local.servers import Kafka, Postgres
from tests.faults.proxy import Proxy
from tests.faults.workers import Workers

SESSION_TIMEOUT_S = 6.0


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
    sql = await _superuser(ground)
    await sql.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    await sql.execute("SELECT pg_reload_conf()")
    await _held(ground)
    await sql.execute("SET default_transaction_read_only = off")
    await sql.execute("ALTER SYSTEM RESET default_transaction_read_only")
    await sql.execute("SELECT pg_reload_conf()")
    await sql.close()


@fault
async def postgres_sessions_ended(ground: Ground) -> None:
    """An operator, or a pooler, ends all sessions, three times."""
    sql = await _superuser(ground)
    for _ in range(3):
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cohort-sync'"
        )
        await asyncio.sleep(ground.random.uniform(0.1, 1))
    await sql.close()


@fault
async def rows_locked(ground: Ground) -> None:
    """Somebody works on the table by hand and takes their time."""
    sql = await _superuser(ground)
    async with sql.transaction():
        await sql.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
        await _held(ground)
    await sql.close()


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


async def _superuser(ground: Ground) -> asyncpg.Connection:
    dsn = ground.postgres.dsn.replace("cohort_sync@", "postgres@")
    return await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "off"})


async def _configure_topic(ground: Ground, name: str, value: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=ground.kafka.bootstrap_servers)
    await admin.start()
    resource = ConfigResource(ConfigResourceType.TOPIC, ground.dead_letter_topic, configs={name: value})
    await admin.alter_configs([resource])
    await admin.close()
