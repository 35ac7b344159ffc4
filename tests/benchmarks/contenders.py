"""What runs against each other: a plain COPY, an upsert by executemany, and the worker."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from struct import Struct
from typing import Any

import asyncpg
import yaml
from asyncpg.pgproto.pgproto import UUID

from deploy.local import guard
from stores.postgres.copy_rows import COLUMNS, context_hash
from tests.benchmarks.ground import SEGMENTS, Ground

BATCH = 20_000
FEED_COLUMNS = (*COLUMNS, "change_xid")
UPSERT = """
    INSERT INTO membership AS m (segment_id, context_hash, context_key, included, event_time, position, change_xid)
    VALUES ($1, $2, $3, $4, $5, $6, pg_current_xact_id())
    ON CONFLICT (segment_id, context_hash) DO UPDATE
    SET included = excluded.included, event_time = excluded.event_time, position = excluded.position,
        change_xid = CASE WHEN m.included <> excluded.included THEN excluded.change_xid ELSE m.change_xid END
    WHERE (m.event_time, m.position) < (excluded.event_time, excluded.position)
"""

_ROW = Struct("!hiii16si")
_AFTER_KEY = Struct("!i?iqiqiq")

Row = tuple[int, Any, str, bool, int, int]


def rows(start: int, count: int) -> list[Row]:
    """Memberships that were never seen, as a client of asyncpg has them."""
    names = [f"user-{number:012d}@example.com" for number in range(start, start + count)]
    return [
        (1 + place // 1_000 % SEGMENTS, UUID(context_hash(name)), name, True, 1_692_206_763_000_000, start + place)
        for place, name in enumerate(names)
    ]


def copy_stream(batch: Sequence[Row], change_xid: int) -> bytes:
    """The same as the bytes of a binary COPY, so that the contender does nothing but copy."""
    parts = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
    for segment_id, hashed, name, included, event_time, position in batch:
        key = name.encode()
        parts.append(_ROW.pack(len(FEED_COLUMNS), 4, segment_id, 16, hashed.bytes, len(key)) + key)
        parts.append(_AFTER_KEY.pack(1, included, 8, event_time, 8, position, 8, change_xid))
    return b"".join([*parts, b"\xff\xff"])


async def copy_rate(dsn: str, streams: Sequence[bytes]) -> float:
    """Rows a second of a plain COPY into the table with its indexes, a transaction for each batch."""
    session = await asyncpg.connect(dsn)
    started = time.perf_counter()
    for stream in streams:

        async def source(whole: bytes = stream) -> Any:
            yield whole

        await session.copy_to_table("membership", source=source(), columns=FEED_COLUMNS, format="binary")
    elapsed = time.perf_counter() - started
    await session.close()
    return len(streams) * BATCH / elapsed


async def executemany_rate(dsn: str, batches: Sequence[Sequence[Row]]) -> float:
    """Rows a second of a versioned upsert by executemany, a transaction for each batch."""
    session = await asyncpg.connect(dsn)
    started = time.perf_counter()
    for batch in batches:
        await session.executemany(UPSERT, batch)
    elapsed = time.perf_counter() - started
    await session.close()
    return sum(map(len, batches)) / elapsed


class Command:
    """A command of `cohort-sync` as a process."""

    def __init__(self, name: str, *arguments: str, settings: Mapping[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix=f"cohort-sync-{name}-")
        self._log = Path(self._folder.name) / "log"
        config = Path(self._folder.name) / "cohort-sync.yaml"
        config.write_text(yaml.safe_dump(dict(settings)))
        command = [sys.executable, "-m", "worker", name, *arguments, "--config", str(config)]
        self._process = guard.start(command, log=self._log, cwd=guard.ROOT)

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    async def said(self, event: str) -> None:
        """Returns when this is in its log."""
        while event.encode() not in self._log.read_bytes():
            if self._process.poll() is not None:
                raise RuntimeError(self._log.read_text()[-2000:])
            await asyncio.sleep(0.05)

    async def ended(self) -> None:
        """Returns when it has ended by itself."""
        await asyncio.to_thread(self._process.wait)

    def stop(self) -> None:
        guard.end(self._process)
        self._folder.cleanup()


class Worker(Command):
    """`cohort-sync run` as a process, with a group of its own."""

    def __init__(self, ground: Ground, dsn: str, topic: str, form: str, *, group_id: str | None = None) -> None:
        super().__init__("run", settings=settings(ground, dsn, topic, form, group_id=group_id))

    async def assigned(self) -> None:
        """Returns when it has partitions."""
        await self.said("partitions_assigned")


def settings(ground: Ground, dsn: str, topic: str, form: str, *, group_id: str | None = None) -> dict[str, Any]:
    """The configuration of every contender that is ours."""
    return {
        "kafka": {
            "bootstrap_servers": ground.kafka.bootstrap_servers,
            "group_id": group_id or f"bench-{uuid.uuid4().hex[:8]}",
        },
        "postgres": {"dsn": dsn},
        "http": {"port": 0},
        "feeds": [{"name": "bench", "topics": [topic], "format": form, "environment": "production"}],
    }
