"""`make up` and `make down`: Kafka, PostgreSQL, Valkey, and all processes of cohort-sync, which outlive the command.

Until all is up, whatever ends `up` ends what it started. Then the process ids are in `.local/pids.json`, for `down`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import yaml

from deploy.local import guard
from deploy.local.processes import HOST, ServerNotStartedError, ports_of, said_last
from deploy.local.servers import create_topics, start_kafka, start_postgres
from deploy.local.settings import TOPICS, sample_settings
from deploy.local.valkey import Valkey

LOCAL = guard.ROOT / ".local"
LOGS = LOCAL / "log"
PIDS = LOCAL / "pids.json"
CONFIG = LOCAL / "cohort-sync.yaml"
ENV = LOCAL / "env"
PROGRAMS = Path(sys.executable).parent
PROCESSES = {"worker": "run", "projector": "project", "gateway": "gateway"}
"""Ours, in the order of their start, each with its command."""
READY_S = 60.0
SAME_START_S = 2.0
"""A process id may be given again, but not with the same start time; that depends a little on the clock being set."""


class Running:
    """The processes of the stack, by name, in the order of their start."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, float]] = json.loads(PIDS.read_text()) if PIDS.exists() else {}

    def add(self, name: str, process: psutil.Process, stop: signal.Signals) -> None:
        self._found[name] = {"pid": process.pid, "started": process.create_time(), "stop": stop}
        PIDS.write_text(json.dumps(self._found, indent=2))

    def processes(self) -> dict[str, tuple[psutil.Process, int]]:
        """Those that are still there, each with the signal that ends it."""
        found = {}
        for name, noted in self._found.items():
            try:
                process = psutil.Process(int(noted["pid"]))
            except psutil.NoSuchProcess:
                continue
            if abs(process.create_time() - noted["started"]) < SAME_START_S and not guard.has_ended(process):
                found[name] = (process, int(noted["stop"]))
        return found

    def all_up(self) -> bool:
        return bool(self._found) and self.processes().keys() == self._found.keys() >= PROCESSES.keys()

    def end(self) -> list[str]:
        """Ends what is there, the last started first; its names."""
        ended = self.processes()
        for name, (process, stop) in reversed(ended.items()):
            print(f"Stopping {name}, process {process.pid}", flush=True)
            guard.end(process, stop)
        PIDS.unlink(missing_ok=True)
        self._found = {}
        return list(ended)


def up() -> None:
    """Starts what is not running; a second call only says where everything is."""
    LOGS.mkdir(parents=True, exist_ok=True)
    running = Running()
    if running.all_up():
        print("Already up.\n")
    else:
        running.end()
        try:
            _start(running)
        except BaseException:
            running.end()
            raise
        guard.release()
    print(ENV.with_name("addresses").read_text(), end="")


def down() -> None:
    """Stops what is running. Data stays in `.local`."""
    if not Running().end():
        print("Nothing was up.")


def _start(running: Running) -> None:
    print("Starting Kafka", flush=True)
    kafka = start_kafka(LOCAL / "kafka", log=LOGS / "kafka.log")
    running.add("kafka", kafka.process, kafka.STOP)
    asyncio.run(create_topics(kafka.bootstrap_servers, TOPICS))

    print("Starting PostgreSQL", flush=True)
    postgres = start_postgres(LOCAL / "postgres", log=LOGS / "postgres.log")
    if postgres.is_ours:
        running.add("postgres", postgres.process, postgres.STOP)

    print("Starting Valkey", flush=True)
    valkey = Valkey(LOCAL / "valkey", log=LOGS / "valkey.log").start()
    running.add("valkey", valkey.process, valkey.STOP)

    gateway_port, *others = ports_of(LOCAL, 1 + len(PROCESSES))
    ports = dict(zip(PROCESSES, others, strict=True))
    gateway_url = f"http://{HOST}:{gateway_port}"
    settings = sample_settings(
        kafka.bootstrap_servers, postgres.dsn, valkey.url, http_port=ports["worker"], gateway_port=gateway_port
    )
    CONFIG.write_text(yaml.safe_dump(settings, sort_keys=False, default_flow_style=None))
    _write_env(kafka.bootstrap_servers, postgres.dsn, ports["worker"], gateway_url)
    _write_addresses(kafka.bootstrap_servers, postgres.dsn, valkey.url, ports, gateway_url)

    subprocess.run(_command("migrate"), check=True, env=_environment(), stdin=subprocess.DEVNULL)
    for name, port in ports.items():
        _start_process(running, name, port)


def _start_process(running: Running, name: str, port: int) -> None:
    print(f"Starting the {name}", flush=True)
    environment = _environment() | {"COHORT_SYNC_HTTP__PORT": str(port)}
    process = guard.start(_command(PROCESSES[name]), log=LOGS / f"{name}.log", cwd=LOCAL, environment=environment)
    running.add(name, process, signal.SIGTERM)
    _wait_until_ready(name, process, port)


def _wait_until_ready(name: str, process: psutil.Popen, port: int) -> None:
    deadline = time.monotonic() + READY_S
    while not _is_ready(port):
        if process.poll() is not None or time.monotonic() > deadline:
            what = "is not ready" if process.poll() is None else f"ended with {process.poll()}"
            log = LOGS / f"{name}.log"
            message = f"the {name} {what}; {log} ends with:\n{said_last(log)}"
            raise ServerNotStartedError(message)
        time.sleep(0.1)


def _is_ready(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _command(name: str) -> list[str]:
    return [str(PROGRAMS / "cohort-sync"), name, "--config", str(CONFIG)]


def _environment() -> dict[str, str]:
    """Ours without settings: a shell that has sourced an older `.local/env` would send the worker to old addresses."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COHORT_SYNC_")}


def _write_env(bootstrap_servers: str, dsn: str, port: int, gateway_url: str) -> None:
    settings = {
        "COHORT_SYNC_CONFIG": str(CONFIG),
        "COHORT_SYNC_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "COHORT_SYNC_POSTGRES__DSN": dsn,
        "COHORT_SYNC_HTTP__PORT": str(port),
        "GATEWAY_URL": gateway_url,  # for people: our prefix is for settings
    }
    lines = ["# Written by `make up`; source it, and every cohort-sync command finds what runs."]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    lines += [f'export PATH={shlex.quote(str(PROGRAMS))}:"$PATH"', ""]
    ENV.write_text("\n".join(lines))


def _write_addresses(
    bootstrap_servers: str, dsn: str, redis_url: str, ports: Mapping[str, int], gateway_url: str
) -> None:
    ENV.with_name("addresses").write_text(
        f"Kafka        {bootstrap_servers}\n"
        f"PostgreSQL   {dsn}\n"
        f"Valkey       {redis_url}\n"
        f"Worker       http://{HOST}:{ports['worker']}  (/healthz, /readyz, /metrics)\n"
        f"Projector    http://{HOST}:{ports['projector']}\n"
        f"Gateway      {gateway_url}  (its probes and metrics: http://{HOST}:{ports['gateway']})\n"
        f"Logs         {LOGS}\n"
        "\n"
        f"Next:  source {shlex.quote(os.path.relpath(ENV, guard.ROOT))}  and then, for example,  cohort-sync status\n"
        "Post:  deploy/docs/gateway.md shows what to send to $GATEWAY_URL\n"
        "Stop:  make down\n"
    )


def main() -> None:
    """`python -m deploy.local.stack up` or `down`."""
    actions = {"up": up, "down": down}
    action = actions.get(" ".join(sys.argv[1:]))
    if action is None:
        print("usage: python -m deploy.local.stack up|down", file=sys.stderr)
        sys.exit(2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        action()
    except (ServerNotStartedError, subprocess.SubprocessError) as exc:
        sys.exit(f"{exc}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
