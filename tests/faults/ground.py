"""What a fault can lay hands on, and how one is told: by a function that breaks something, waits, and mends it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import asyncpg
from aiokafka.errors import KafkaError

from deploy.local.servers import Kafka, Postgres, ServerNotStartedError
from deploy.local.valkey import Valkey
from tests.faults.disk import Disk
from tests.faults.proxy import Proxy
from tests.faults.topic_reader import TopicReader
from tests.faults.workers import Workers

SESSION_TIMEOUT_S = 6.0
INSISTED_S = 60.0

T = TypeVar("T")


@dataclass(kw_only=True)
class Ground:
    """All parts of a campaign. A failover puts another server into `postgres`."""

    kafka: Kafka
    postgres: Postgres
    kafka_disk: Disk
    postgres_disk: Disk
    kafka_proxy: Proxy
    postgres_proxy: Proxy
    valkey_proxy: Proxy
    workers: Workers
    projectors: Workers
    valkey: Valkey
    topics: TopicReader
    folder: Path
    random: random.Random
    wrong: list[str] = field(default_factory=list)
    """What a fault itself saw go wrong."""
    kafka_server: asyncio.Lock = field(default_factory=asyncio.Lock)
    postgres_server: asyncio.Lock = field(default_factory=asyncio.Lock)
    valkey_server: asyncio.Lock = field(default_factory=asyncio.Lock)
    dead_letter_topic: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Two faults at a time, but not two that stop and start the same thing: whoever does takes its lock."""

    def stop_postgres(self) -> None:
        """Ends whichever server it is by now."""
        self.postgres.stop()


class Fault(NamedTuple):
    """A fault by its name."""

    name: str
    run: Callable[[Ground], Awaitable[None]]
    needs_disk: bool = False


class _Act(Protocol):
    async def __call__(self, ground: Ground) -> None: ...


FAULTS: list[Fault] = []


def fault(act: _Act) -> _Act:
    """Adds it to the list, by its name."""
    FAULTS.append(Fault(getattr(act, "__name__", "fault"), act))
    return act


def disk_fault(act: _Act) -> _Act:
    """Likewise, where a disk can be made that fills up."""
    FAULTS.append(Fault(getattr(act, "__name__", "fault"), act, needs_disk=True))
    return act


async def hold(ground: Ground) -> None:
    """So long a fault lasts."""
    await asyncio.sleep(ground.random.uniform(1, 8))


@asynccontextmanager
async def locked(ground: Ground) -> AsyncIterator[None]:
    """Nobody else writes memberships, unless another fault ends the session."""
    sql = await superuser(ground)
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await sql.execute("BEGIN")
        await sql.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
    yield
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await sql.close(timeout=5)


async def as_superuser(ground: Ground, *statements: str) -> None:
    """Executes them past the proxy, also on a server that is read-only."""

    async def execute() -> None:
        sql = await superuser(ground)
        try:
            for statement in statements:
                await sql.execute(statement)
        finally:
            await sql.close(timeout=5)

    await insisting(execute)


async def superuser(ground: Ground, database: str = "cohort_sync") -> asyncpg.Connection:
    """A session past the proxy."""

    async def connect() -> asyncpg.Connection:
        port = ground.postgres.port
        return await asyncpg.connect(
            f"postgresql://postgres@127.0.0.1:{port}/{database}",
            timeout=10,
            server_settings={"default_transaction_read_only": "off"},
        )

    return await insisting(connect)


async def insisting(act: Callable[[], Awaitable[T]]) -> T:
    """Tries until it succeeds: another fault may be at the same server."""
    async with asyncio.timeout(INSISTED_S):
        while True:
            try:
                return await act()
            except (OSError, KafkaError, asyncpg.PostgresError, asyncpg.InterfaceError, ServerNotStartedError):
                await asyncio.sleep(0.2)
