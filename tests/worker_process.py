"""The worker as a process, with topics and a database of one test's own."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg
import httpx
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local import guard
from deploy.local.servers import create_topics

WAIT_S = 60.0
HTTP_OK = 200
T = TypeVar("T")


class CommandProcess:
    """One command of the command line, as an operator would start it."""

    def __init__(self, *arguments: str, config: Path, log: Path, module: str = "worker") -> None:
        self.log_file = log
        command = [sys.executable, "-m", module, *arguments, "--config", str(config)]
        self._process = guard.start(command, log=log, cwd=guard.ROOT)

    @property
    def returncode(self) -> int | None:
        status: int | None = self._process.poll()
        return status

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    def send(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    async def wait(self, timeout_s: float = WAIT_S) -> int:
        """The exit status, once it has ended."""
        status: int = await asyncio.to_thread(self._process.wait, timeout_s)
        return status

    async def stop(self) -> int:
        self.send(signal.SIGTERM)
        return await self.wait()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class ServiceProcess(CommandProcess):
    """A command that goes on: it logs, and answers probes."""

    def events(self) -> list[dict[str, Any]]:
        """The log lines so far."""
        lines = self.log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def logged(self, event: str) -> dict[str, Any]:
        """Waits for a log line with this event name."""

        async def find() -> dict[str, Any] | None:
            if self.returncode not in (None, 0):
                message = f"the worker ended with {self.returncode}: {self.log_file.read_text()[-2000:]}"
                raise AssertionError(message)
            return next((line for line in self.events() if line.get("event") == event), None)

        return await eventually(find)

    async def get(self, path: str) -> httpx.Response:
        """An answer of its HTTP server, on whatever port it took."""
        started = await self.logged("http_server_started")
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://127.0.0.1:{started['port']}{path}")

    async def dependencies(self) -> dict[str, bool]:
        """Which of its dependencies answer, as its metrics say it."""
        text = (await self.get("/metrics")).text
        said = re.findall(r'^cohort_sync_dependency_up{dependency="(.+)"} (.)', text, re.MULTILINE)
        return {name: value == "1" for name, value in said}


class WorkerProcess(ServiceProcess):
    """One `cohort-sync run`."""

    def __init__(self, config: Path, *arguments: str, log: Path) -> None:
        super().__init__("run", *arguments, config=config, log=log)


class GatewayProcess(ServiceProcess):
    """One `cohort-sync gateway`."""

    def __init__(self, config: Path, *, log: Path) -> None:
        super().__init__("gateway", config=config, log=log)

    async def ready(self) -> str:
        """Its address, once it takes requests."""
        started = await self.logged("gateway_started")

        async def is_ready() -> bool:
            return (await self.get("/readyz")).status_code == HTTP_OK

        await eventually(is_ready)
        return f"http://127.0.0.1:{started['port']}"


class Bench:
    """A consumer group, topics and a database that nobody else uses."""

    def __init__(self, bootstrap_servers: str, dsn: str, folder: Path) -> None:
        name = uuid.uuid4().hex[:8]
        self.bootstrap_servers = bootstrap_servers
        self.dsn = dsn
        self.folder = folder
        self.group_id = f"group-{name}"
        self.webhook_topic = f"webhook-{name}"
        self.amplitude_topic = f"amplitude-{name}"
        self.segment_topic = f"segment-{name}"
        self.dead_letter_topic = f"dead-letters-{name}"
        self.settings: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": bootstrap_servers,
                "group_id": self.group_id,
                "dead_letter_topic": self.dead_letter_topic,
                "session_timeout_ms": 6000,
            },
            "postgres": {"dsn": dsn},
            "http": {"port": 0},
            "environments": [{"key": "production", "client_side_id": "61a0c0ffee0123456789abcd"}],
            "feeds": [
                self._feed("webhook", self.webhook_topic, "amplitude-webhook"),
                self._feed("amplitude", self.amplitude_topic, "amplitude"),
                self._feed("engage", self.segment_topic, "segment"),
            ],
        }
        self._workers: list[ServiceProcess] = []

    @staticmethod
    def _feed(name: str, topic: str, form: str) -> dict[str, Any]:
        return {"name": name, "topics": [topic], "format": form, "environment": "production"}

    @property
    def config(self) -> Path:
        path = self.folder / "cohort-sync.yaml"
        path.write_text(yaml.safe_dump(self.settings))
        return path

    async def __aenter__(self) -> Self:
        await self.create_topics(
            {self.webhook_topic: 4, self.amplitude_topic: 2, self.segment_topic: 2, self.dead_letter_topic: 1}
        )
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers,
            max_request_size=32 << 20,
            key_serializer=lambda key: (
                key or None
            ),  # aiokafka refuses a null value without a key; other producers don't
        )
        await self._producer.start()
        self.sql = await asyncpg.connect(self.dsn)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.kill()
        await self.sql.close()
        await self._producer.stop()

    async def create_topics(self, topics: dict[str, int]) -> None:
        await create_topics(self.bootstrap_servers, topics)

    async def limit_topic(self, topic: str, name: str, value: str) -> None:
        """Sets a configuration of the topic."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={name: value})])
        await admin.close()

    async def delete_topic(self, topic: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        await admin.delete_topics([topic])
        await admin.close()

    def start_worker(self, *arguments: str) -> WorkerProcess:
        log = self.folder / f"worker-{len(self._workers)}.log"
        worker = WorkerProcess(self.config, *arguments, log=log)
        self._workers.append(worker)
        return worker

    def start_gateway(self) -> GatewayProcess:
        self.settings["gateway"] = {"port": 0, **self.settings.get("gateway", {})}
        gateway = GatewayProcess(self.config, log=self.folder / f"gateway-{len(self._workers)}.log")
        self._workers.append(gateway)
        return gateway

    async def catch_up(self) -> None:
        """Runs a worker until everything published so far is stored."""
        worker = self.start_worker("--until-caught-up")
        assert await worker.wait() == 0, worker.log_file.read_text()[-3000:]

    async def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """A command of the command line, with this test's configuration."""
        command = [sys.executable, "-m", "worker", *arguments, "--config", str(self.config)]
        return await asyncio.to_thread(
            subprocess.run,
            command,
            input=stdin,
            capture_output=True,
            timeout=WAIT_S,
            check=False,
            cwd=Path(__file__).parent.parent,
        )

    async def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command prints with --json."""
        done = await self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.splitlines()]

    async def publish(
        self,
        topic: str,
        *values: object,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        key: bytes = b"",
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> list[int]:
        """Publishes JSON values (or bytes as they are, or None) and returns their offsets."""
        futures = [
            await self._producer.send(
                topic,
                value if isinstance(value, bytes | None) else json.dumps(value).encode(),
                key=key,
                partition=partition,
                timestamp_ms=timestamp_ms,
                headers=list(headers),
            )
            for value in values
        ]
        await self._producer.flush()
        return [(await future).offset for future in futures]

    async def members(self, segment: str) -> dict[str, bool]:
        rows = await self.sql.fetch(
            "SELECT context_key, included FROM membership JOIN segment ON id = segment_id WHERE key = $1", segment
        )
        return dict(rows)

    async def included(self) -> int:
        count: int = await self.sql.fetchval("SELECT count(*) FROM membership WHERE included")
        return count

    async def writer_waits(self) -> bool:
        """Whether a writer waits for a lock."""
        waits: bool = await self.sql.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database() AND application_name = 'cohort-sync')"
        )
        return waits

    async def reconnect(self) -> None:
        """After the server was restarted."""
        self.sql = await asyncpg.connect(self.dsn)

    async def dead_letters(self) -> list[dict[str, Any]]:
        """The headers of every dead letter, with its key and value."""
        return [
            {name.removeprefix("dead-letter-"): value.decode() for name, value in record.headers}
            | {"key": record.key, "value": record.value}
            for record in await self.read_topic(self.dead_letter_topic)
        ]

    async def read_topic(self, topic: str, number: int = 0) -> list[Any]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap_servers, max_partition_fetch_bytes=32 << 20)
        await consumer.start()
        partition = TopicPartition(topic, number)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        records: list[Any] = []
        while len(records) < end:
            records += (await consumer.getmany(partition, timeout_ms=1000)).get(partition, [])
        await consumer.stop()
        return records

    async def committed(self, topic: str) -> dict[int, int]:
        """The group's next offsets by partition."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        offsets = await admin.list_consumer_group_offsets(self.group_id)
        await admin.close()
        return {tp.partition: found.offset for tp, found in offsets.items() if tp.topic == topic and found.offset >= 0}


async def eventually(find: Callable[[], Awaitable[T | None]], timeout_s: float = WAIT_S) -> T:
    """Asks until there is an answer."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := await find():
            return found
        await asyncio.sleep(0.05)
    message = f"{getattr(find, '__qualname__', find)}: nothing after {timeout_s} s"
    raise AssertionError(message)


def webhook(cohort_id: str, *user_ids: object, in_cohort: bool = True, at: int = 1_692_206_763) -> dict[str, Any]:
    """An hourly batch as Amplitude's cohort webhook sends it."""
    return {
        "cohort_name": f"Cohort {cohort_id}",
        "cohort_id": cohort_id,
        "in_cohort": in_cohort,
        "computed_time": str(at),
        "message_id": "9baaa88f-9d46-4ee5-a946-be0c6aea0046::enter::0",
        "users": [{"user_id": user_id} for user_id in user_ids],
    }
