"""Servers, topics and workers of one campaign, with a proxy between each pair."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from deploy.local.processes import HOST, free_ports
from deploy.local.servers import Postgres, create_topics, start_kafka
from deploy.local.valkey import Valkey
from stores.postgres.migrating import migrate
from tests.faults.disk import Disk
from tests.faults.ground import SESSION_TIMEOUT_S, Ground
from tests.faults.proxy import Proxy
from tests.faults.stream import Topics
from tests.faults.topic_reader import TopicReader
from tests.faults.workers import Workers

TOPICS = Topics("faults.webhook", "faults.amplitude", "faults.segment", "faults.any")
DEAD_LETTERS = "faults.dead-letters"
GROUP = "faults"
PROJECTION = "sdk"
WORKERS = 2


@asynccontextmanager
async def deployed(folder: Path, randomness: random.Random, *, breakable: bool = True) -> AsyncIterator[Ground]:
    """All of it, started in this folder, and ended with everything that faults put in its place.

    Unless `breakable`, disks are large, and workers reach servers directly, since a proxy costs as much as they do.
    """
    async with AsyncExitStack() as stack:
        kafka_disk = stack.enter_context(Disk(folder / "kafka-disk", may_be_full=breakable))
        postgres_disk = stack.enter_context(Disk(folder / "postgres-disk", may_be_full=breakable))
        kafka = stack.enter_context(await asyncio.to_thread(start_kafka, kafka_disk.folder / "kafka"))
        postgres = stack.enter_context(await asyncio.to_thread(Postgres(postgres_disk.folder / "postgres").start))
        valkey = stack.enter_context(await asyncio.to_thread(Valkey(folder / "valkey").start))
        await create_topics(kafka.bootstrap_servers, TOPICS.partitions() | {DEAD_LETTERS: 1})
        await migrate(postgres.dsn)
        kafka_proxy = await stack.enter_async_context(Proxy(kafka.proxied_port, kafka.behind_proxy_port))
        postgres_port, valkey_port = free_ports(2)
        postgres_proxy = await stack.enter_async_context(Proxy(postgres_port, postgres.port))
        valkey_proxy = await stack.enter_async_context(Proxy(valkey_port, valkey.port))
        config = folder / "cohort-sync.yaml"
        settings = _settings(kafka.bootstrap_servers, postgres.dsn, valkey.url)
        if breakable:
            dsn = postgres.dsn.replace(f":{postgres.port}/", f":{postgres_port}/")
            settings = _settings(f"{HOST}:{kafka.proxied_port}", dsn, f"redis://{HOST}:{valkey_port}/0")
        config.write_text(yaml.safe_dump(settings))
        workers = Workers(config, folder, count=WORKERS)
        stack.callback(workers.kill_all)
        projectors = Workers(config, folder, count=WORKERS if breakable else 1, command="project")
        stack.callback(projectors.kill_all)
        topics = TopicReader(
            kafka.bootstrap_servers, partitions=TOPICS.partitions(), dead_letter_topic=DEAD_LETTERS, group_id=GROUP
        )
        ground = Ground(
            kafka=kafka,
            postgres=postgres,
            kafka_disk=kafka_disk,
            postgres_disk=postgres_disk,
            kafka_proxy=kafka_proxy,
            postgres_proxy=postgres_proxy,
            valkey_proxy=valkey_proxy,
            workers=workers,
            projectors=projectors,
            valkey=valkey,
            topics=topics,
            folder=folder,
            random=randomness,
        )
        stack.callback(ground.stop_postgres)
        yield ground


def _settings(bootstrap_servers: str, dsn: str, redis_url: str) -> dict[str, Any]:
    def feed(name: str, topic: str) -> dict[str, Any]:
        return {"name": name, "topics": [topic], "format": name, "environment": "production"}

    return {
        "kafka": {
            "bootstrap_servers": bootstrap_servers,
            "group_id": GROUP,
            "dead_letter_topic": DEAD_LETTERS,
            "session_timeout_ms": int(SESSION_TIMEOUT_S * 1000),
        },
        "postgres": {"dsn": dsn},
        "http": {"port": 0},
        "batch": {"max_wait_s": 0.2},
        "projections": [{"name": PROJECTION, "type": "redis", "environment": "production", "url": redis_url}],
        "feeds": [
            feed("amplitude-webhook", TOPICS.webhook),
            feed("amplitude", TOPICS.amplitude),
            feed("segment", TOPICS.segment),
            feed("header", TOPICS.any),
        ],
    }
