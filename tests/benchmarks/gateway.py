"""The gateway: identify calls a second beside an empty 200 of the same server, and how long an answer takes."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles

from deploy.local import guard
from deploy.local.processes import free_ports
from stores.postgres.tokens import TokenInForce, token_admin
from tests.benchmarks.contenders import Command
from tests.benchmarks.ground import MEMBERS_A_BATCH, Ground
from tests.benchmarks.tables import console, progress, ratios, spread, table, verdict
from worker.gateway.policies import ROLES
from worker.gateway.tokens import new_token

SECONDS = 5.0
CONNECTIONS = 64
BATCHES_A_SECOND = 50
GOAL_RATIO, GOAL_S = 0.5, 0.1
HOST = "127.0.0.1"


async def run(ground: Ground, rounds: int) -> None:
    empty, identify, of_calls, of_batches = [], [], [], []
    with progress() as bar:
        for _ in bar.track(range(rounds), description="gateway"):
            async with _empty_server() as port:
                empty.append(await _rate(port, _call("none", 0)))
            async with _gateway(ground) as (port, token):
                identify.append(await _rate(port, _call(token, 1)))
                of_calls.append(_p99(await _paced(port, identify[-1] / 2, partial(_call, token))))
                of_batches.append(_p99(await _paced(port, BATCHES_A_SECOND, partial(_batch, token))))
    shown = table(f"Gateway, {CONNECTIONS} connections, broker on the same cores", "what", "figure")
    shown.add_row("an empty 200, requests/s", spread(empty))
    shown.add_row("identify calls/s, each acknowledged by Kafka", spread(identify))
    shown.add_row("ratio", verdict(ratios(identify, empty), GOAL_RATIO))
    shown.add_row("p99 at half of that, s", _within(of_calls))
    shown.add_row(f"p99 of {MEMBERS_A_BATCH:,} members at {BATCHES_A_SECOND} requests/s, s", _within(of_batches))
    console.print(shown)


def _within(seconds: list[float]) -> str:
    mark = "reached" if median(seconds) <= GOAL_S else "MISSED"
    return f"{spread(seconds, '.3f')}, goal {GOAL_S}: {mark}"


def _p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[98]


async def _rate(port: int, request: bytes) -> float:
    """Answers a second to connections that each send the next request when they have an answer."""
    until = time.perf_counter() + SECONDS
    counts = await asyncio.gather(*(_closed_loop(port, request, until) for _ in range(CONNECTIONS)))
    return sum(counts) / SECONDS


async def _closed_loop(port: int, request: bytes, until: float) -> int:
    reader, writer = await asyncio.open_connection(HOST, port)
    count = 0
    while time.perf_counter() < until:
        await _answered(reader, writer, request)
        count += 1
    writer.close()
    return count


async def _paced(port: int, requests_a_second: float, request: Callable[[int], bytes]) -> list[float]:
    """How long each answer took, from when it was due, at this pace. Whoever is late waits with the others."""
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(await asyncio.open_connection(HOST, port))
    began = time.perf_counter()

    async def send(number: int, due: float) -> float:
        connection = await idle.get()
        await _answered(*connection, request(number))
        idle.put_nowait(connection)
        return time.perf_counter() - due

    sending = []
    for number in range(round(SECONDS * requests_a_second)):
        due = began + number / requests_a_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sending.append(asyncio.create_task(send(number, due)))
    seconds = await asyncio.gather(*sending)
    while not idle.empty():
        idle.get_nowait()[1].close()
    return list(seconds)


async def _answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith((b"http/1.1 200", b"http/1.1 204")):
        raise RuntimeError(head.decode())
    _, found, rest = head.partition(b"content-length:")
    if found:
        await reader.readexactly(int(rest.split(b"\r", 1)[0]))


def _request(path: str, body: bytes, token: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
    )
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _call(token: str, number: int) -> bytes:
    personas = {"computation_class": "audience", "computation_id": "aud_1", "computation_key": "beta"}
    call = {"type": "identify", "userId": f"user-{number}", "traits": {"beta": True}, "context": {"personas": personas}}
    return _request("/v1/identify", json.dumps(call).encode(), token)


def _batch(token: str, number: int) -> bytes:
    named = {"cohortId": f"bench{number % 10}", "cohortName": "Bench", "value": True}
    members = [{"userId": f"user-{number}-{each}@example.com", **named} for each in range(MEMBERS_A_BATCH)]
    body = json.dumps({"environmentId": "production", "batch": members}).encode()
    return _request("/api/v2/segment-targets/amplitude", body, token)


@asynccontextmanager
async def _empty_server() -> AsyncIterator[int]:
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.empty_server", str(port)]
        process = guard.start(command, log=Path(folder) / "log", cwd=guard.ROOT)
        await _open(port)
        yield port
        guard.end(process)


@asynccontextmanager
async def _gateway(ground: Ground) -> AsyncIterator[tuple[int, str]]:
    """A gateway's port, and a token that it knows."""
    [port], topic = free_ports(1), await ground.topic()
    made = new_token()
    async with ground.database() as dsn:
        async with token_admin(dsn) as admin:
            await admin.create(TokenInForce(made.id, made.sha256, ROLES["writer"], "any"), name="bench", role="writer")
        settings = {
            "kafka": {"bootstrap_servers": ground.kafka.bootstrap_servers},
            "postgres": {"dsn": dsn},
            "http": {"port": 0},
            "feeds": [{"name": "any", "topics": [topic], "format": "header", "environment": "production"}],
            "gateway": {"port": port, "token_requests_per_s": 1_000_000},
        }
        gateway = Command("gateway", settings=settings)
        try:
            await gateway.said("tokens_read")
            await _open(port)
            yield port, made.text
        finally:
            gateway.stop()


async def _open(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
