"""`make demo`: the main job on real input, on servers that it starts itself, with a check of its own result.

Sample feeds of every kind, bad records among them, and a large hourly batch go through Kafka into PostgreSQL; then the
command line shows what came of them. Exit status 0 only if everything is as `samples/expected.json` says.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import yaml
from rich.console import Console

from deploy.local import guard
from deploy.local.sdk import redis_store, sdk
from deploy.local.servers import create_topics, start_kafka, start_postgres
from deploy.local.settings import TOPICS, sample_settings
from deploy.local.valkey import Valkey
from stores.redis.target import DEFAULT_PREFIX

SAMPLES = Path(__file__).parent / "samples"
HOURLY_MEMBERS = 50_000
PAGE_MEMBERS = 1_000
WAIT_S = 60.0
IDENTIFIED, IDENTIFIED_SEGMENT = "lin", "segment-audiences-aud_2Bq"

console = Console(highlight=False)
T = TypeVar("T")


class DemoFailed(Exception):
    """Something did not come out as it must."""


class Demo:
    """The commands of one demo, all with the same configuration."""

    def __init__(self, folder: Path, config: Path) -> None:
        self._folder = folder
        self._environment = os.environ | {"COHORT_SYNC_CONFIG": str(config)}

    def show(self, *arguments: str) -> None:
        """Runs a command as a person would, output and all."""
        console.print(f"\n[bold]$ cohort-sync {' '.join(arguments)}[/bold]")
        done = self._run(arguments, stdout=None)
        if done.returncode:
            message = f"`cohort-sync {' '.join(arguments)}` ended with {done.returncode}"
            raise DemoFailed(message)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command says to programs."""
        done = self._run((*arguments, "--json"), stdout=subprocess.PIPE)
        if done.returncode:
            message = f"`cohort-sync {' '.join(arguments)} --json` ended with {done.returncode}"
            raise DemoFailed(message)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def data(self) -> dict[str, Any]:
        """The segments as an SDK reads them."""
        data: dict[str, Any] = json.loads(self._run(("sdk-data",), stdout=subprocess.PIPE).stdout)
        return data

    @contextmanager
    def running(self, command: str) -> Iterator[str]:
        """A process of ours by the address of its probes and metrics; stopped in good order."""
        log = self._log(command)
        process = guard.start(
            [sys.executable, "-m", "worker", command], log=log, cwd=guard.ROOT, environment=self._environment
        )
        try:
            yield wait_for(f"the start of `cohort-sync {command}`", lambda: _address(process, log))
            process.send_signal(signal.SIGTERM)
            if status := process.wait(WAIT_S):
                message = f"`cohort-sync {command}` ended with {status}: {log.read_text()[-2000:]}"
                raise DemoFailed(message)
        finally:
            guard.end(process)

    def gateway_url(self) -> str:
        """Where the gateway that is running takes what tools send."""
        url = _logged_address(self._log("gateway"), "gateway_started")
        if url is None:
            raise DemoFailed("the gateway is ready, but nowhere")
        return url

    def _log(self, command: str) -> Path:
        return self._folder / f"{command}.log"

    def _run(self, arguments: tuple[str, ...], *, stdout: int | None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "worker", *arguments]
        return subprocess.run(
            command,
            env=self._environment,
            stdout=stdout,
            text=True,
            timeout=WAIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )


def main() -> int:
    """Runs the demo; its exit status."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    try:
        with tempfile.TemporaryDirectory(prefix="cohort-sync-demo-") as folder:
            run(Path(folder))
    except DemoFailed as exc:
        console.print(f"\n[bold red]The demo failed:[/] {exc}")
        return 1
    except KeyboardInterrupt:
        return 130
    console.print(
        f"\n[bold green]All as it must be[/], in {time.monotonic() - started:.0f} s. `make up` keeps it running."
    )
    return 0


def run(folder: Path) -> None:
    """Starts the servers, does the main job on them, and compares."""
    with (
        console.status("Starting Apache Kafka, PostgreSQL and Valkey"),
        start_kafka(folder / "kafka") as kafka,
        start_postgres(folder / "postgres") as postgres,
        Valkey(folder / "valkey").start() as valkey,
    ):
        console.print(
            f"Apache Kafka on {kafka.bootstrap_servers}, PostgreSQL on {postgres.dsn}, Valkey on {valkey.url}"
        )
        asyncio.run(create_topics(kafka.bootstrap_servers, TOPICS))
        config = folder / "cohort-sync.yaml"
        settings = sample_settings(kafka.bootstrap_servers, postgres.dsn, valkey.url, http_port=0, gateway_port=0)
        config.write_text(yaml.safe_dump(settings))
        demo = Demo(folder, config)
        demo.show("migrate")
        hourly = folder / "hourly.jsonl"
        hourly.write_text("".join(map(_line, hourly_batch())))
        with demo.running("run") as address, demo.running("project"):
            for path in sorted(SAMPLES.glob("*.jsonl")):
                demo.show("publish", "--feed", path.stem, str(path))
            for path in sorted((SAMPLES / "any").glob("*.jsonl")):
                demo.show("publish", "--feed", "any", "--header", f"integration={path.stem}", str(path))
            demo.show("publish", "--feed", "amplitude-webhook", str(hourly))
            identify(demo)
            wait_for("all records to be stored", lambda: _is_all_stored(demo))
            demo.show("segments")
            demo.show("explain", "amplitude-7khm89cz", "alan@example.com", "--record")
            demo.show("explain", IDENTIFIED_SEGMENT, IDENTIFIED)
            demo.show("dead-letters", "list")
            _show_freshness(address)
            wait_for("the SDKs' store to be complete", lambda: _is_synchronized(demo))
            evaluate(demo, valkey.url, folder)
        compare(demo)


def identify(demo: Demo) -> None:
    """Sends over HTTP, through the gateway, what Twilio Segment's libraries send of a user who joins an audience."""
    create = ("tokens", "create", "--name", "Segment", "--role", "writer", "--feed", "segment")
    [token] = demo.rows(*create)
    personas = {"computation_class": "audience", "computation_id": "aud_2Bq", "computation_key": "first_time_shopper"}
    call = {"userId": IDENTIFIED, "traits": {"first_time_shopper": True}, "context": {"personas": personas}}
    with demo.running("gateway"):
        url = f"{demo.gateway_url()}/v1/identify"
        console.print(f"\n[bold]$ WRITE_KEY=$(cohort-sync {' '.join(create)})[/bold]", soft_wrap=True)
        console.print(f"[bold]$ curl --user $WRITE_KEY: --json '{json.dumps(call)}' {url}[/bold]", soft_wrap=True)
        answer = httpx.post(url, json=call, auth=(token["token"], ""))
        console.print(answer.text)
    _check("what the gateway answers, once Kafka has acknowledged", answer.status_code, 200)


def hourly_batch() -> Iterator[dict[str, Any]]:
    """What Amplitude sends when a large cohort is synced: pages of a thousand."""
    for page in range(HOURLY_MEMBERS // PAGE_MEMBERS):
        users = [{"user_id": f"visitor-{page * PAGE_MEMBERS + place:06d}"} for place in range(PAGE_MEMBERS)]
        yield {
            "cohort_name": "Weekly visitors",
            "cohort_id": "weekly1",
            "in_cohort": True,
            "computed_time": "1692206763",
            "message_id": f"5f6a2d6e-5a0c-4f86-a5d2-0a1b8cdd2c11::enter::{page}",
            "users": users,
        }


def compare(demo: Demo) -> None:
    """Raises `DemoFailed` unless memberships and dead letters are exactly the expected ones."""
    expected = json.loads((SAMPLES / "expected.json").read_text())
    keys = {row["cohort_id"]: row["segment"] for row in demo.rows("segments")}
    for name, members in expected["members"].items():
        segment = keys.get(name, name)
        found = {row["context_key"]: row["included"] for row in demo.rows("members", segment, "--all")}
        _check(f"the members of {segment}", found, members)
    _check("the size of the hourly batch", len(demo.rows("members", "amplitude-weekly1")), HOURLY_MEMBERS)
    _check("the number of segments", len(keys), len(expected["members"]) + 1)
    letters = Counter(row["reason"] for row in demo.rows("dead-letters", "list", "--each"))
    _check("the dead letters by reason", dict(letters), expected["dead_letters"])


def evaluate(demo: Demo, url: str, folder: Path) -> None:
    """Evaluates a flag for each segment with the official SDK: for everybody who is in, who left, and a stranger."""
    expected = json.loads((SAMPLES / "expected.json").read_text())["members"]
    rows = demo.rows("segments")
    keys = {row["cohort_id"]: row["segment"] for row in rows}
    kinds = {row["segment"]: row["context_kind"] for row in rows}
    console.print("\n[bold]Flags, evaluated by the LaunchDarkly Python SDK from Valkey[/bold]")
    with sdk(demo.data(), redis_store(url, prefix=DEFAULT_PREFIX), folder) as app:
        for name, members in expected.items():
            segment = keys.get(name, name)
            asked = {**members, "a stranger": False}
            found = {key: app.is_in(segment, key, kinds[segment]) for key in asked}
            _check(f"the flag on {segment}, on for {sum(found.values())} of {len(found)} contexts", found, asked)
        _check("what the SDK says of the store", app.status_of("amplitude-weekly1", "visitor-000001"), "HEALTHY")


def wait_for(what: str, ask: Callable[[], T | None]) -> T:
    """Asks until there is an answer."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.1)
    message = f"waited {WAIT_S:.0f} s for {what}"
    raise DemoFailed(message)


def _address(process: psutil.Popen, log: Path) -> str | None:
    if process.poll() is not None:
        message = f"it ended with {process.returncode}: {log.read_text()[-2000:]}"
        raise DemoFailed(message)
    address = _logged_address(log, "http_server_started")
    try:
        return address if address and httpx.get(f"{address}/readyz").is_success else None
    except httpx.TransportError:
        return None


def _logged_address(log: Path, event: str) -> str | None:
    """Where a server listens, as it said in this event."""
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return next((f"http://127.0.0.1:{each['port']}" for each in events if each.get("event") == event), None)


def _is_all_stored(demo: Demo) -> bool:
    feeds = [row for row in demo.rows("status") if row["kind"] == "feed"]
    return all(row["lag_records"] == 0 for row in feeds)


def _is_synchronized(demo: Demo) -> bool:
    (projection,) = (row for row in demo.rows("status") if row["kind"] == "projection")
    return projection["synchronized_on"] is not None and projection["why"] is None


def _show_freshness(address: str) -> None:
    """From the worker's own metrics: how long records took from the broker to the commit in PostgreSQL."""
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    console.print(
        "\n[bold]Freshness, from Kafka to the commit in PostgreSQL[/bold] (cohort_sync_event_to_store_seconds)"
    )
    values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}
    for feed in ("amplitude", "amplitude-webhook", "segment", "any"):
        name = "cohort_sync_event_to_store_seconds"
        count, total = (values[f'{name}_{part}{{feed="{feed}"}}'] for part in ("count", "sum"))
        console.print(f"  {feed:18} {count:4.0f} records, {total / count:.2f} s on average")


def _check(what: str, found: object, expected: object) -> None:
    if found != expected:
        message = f"{what}: found {found}, expected {expected}"
        raise DemoFailed(message)
    console.print(f"  [green]right[/]: {what}")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


if __name__ == "__main__":
    sys.exit(main())
