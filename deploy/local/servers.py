"""Kafka and PostgreSQL on free ports of 127.0.0.1, each in a folder of its own, as root or not.

    with start_kafka(folder / "kafka") as kafka, start_postgres(folder / "postgres") as postgres:
        asyncio.run(create_topics(kafka.bootstrap_servers, {"cohorts": 4}))

They end with the process that started them, also when that is killed: see `guard`. A folder that was used before keeps
its data and, while they are free, its ports.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from deploy.local.kafka import Kafka
from deploy.local.postgres import ForeignPostgres, Postgres
from deploy.local.processes import ServerNotStartedError

__all__ = [
    "POSTGRES_DSN",
    "Kafka",
    "Postgres",
    "ServerNotStartedError",
    "create_topics",
    "start_kafka",
    "start_postgres",
]

POSTGRES_DSN = "COHORT_SYNC_TEST_POSTGRES_DSN"
"""Names a PostgreSQL to use instead of starting one. Its role must be allowed to create databases."""


def start_kafka(folder: Path, *, log: Path | None = None) -> Kafka:
    """A Kafka that serves."""
    return Kafka(folder, log=log).start()


def start_postgres(folder: Path, *, log: Path | None = None) -> Postgres:
    """A PostgreSQL that serves: the one that the environment names, else one of ours."""
    if dsn := os.environ.get(POSTGRES_DSN):
        return ForeignPostgres(dsn)
    return Postgres(folder, log=log).start()


async def create_topics(bootstrap_servers: str, topics: Mapping[str, int]) -> None:
    """Makes the topics that are not there yet, with so many partitions each."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, count, 1) for name, count in topics.items()])
    finally:
        await admin.close()
    for topic, code, *message in answer.topic_errors:
        if (error := for_code(code)) not in (NoError, TopicAlreadyExistsError):
            raise error(topic, *message)
