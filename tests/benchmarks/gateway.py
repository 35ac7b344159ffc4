"""The gateway: identify calls a second beside an empty 200 of the same server, and how long an answer takes."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median

from deploy.local import guard
from deploy.local.processes import free_ports
from stores.postgres.tokens import TokenInForce, token_admin
from tests.benchmarks.contenders import Command
from tests.benchmarks.ground import MEMBERS_A_BATCH, Ground
from tests.benchmarks.load import CONNECTIONS, k6, load
from tests.benchmarks.tables import console, progress, ratios, spread, table, verdict
from worker.gateway.policies import ROLES
from worker.gateway.tokens import new_token

BATCHES_A_SECOND = 50
GOAL_RATIO, GOAL_S = 0.5, 0.1
HOST = "127.0.0.1"


async def run(ground: Ground, rounds: int) -> None:
    await asyncio.to_thread(k6)
    empty, identify, of_calls, of_batches = [], [], [], []
    with progress() as bar:
        for _ in bar.track(range(rounds), description="gateway"):
            async with _empty_server() as url:
                empty.append((await load(url, "none", of="identify")).a_second)
            async with _gateway(ground) as (url, token):
                send = partial(load, url, token)
                identify.append((await send(of="identify")).a_second)
                of_calls.append((await send(of="identify", a_second=identify[-1] / 2)).p99_s)
                batches = await send(of="batch", members=MEMBERS_A_BATCH, a_second=BATCHES_A_SECOND)
                of_batches.append(batches.p99_s)
    shown = table(f"Gateway, {CONNECTIONS} connections of k6, broker on the same cores", "what", "figure")
    shown.add_row("an empty 200, requests/s", spread(empty))
    shown.add_row("identify calls/s, each acknowledged by Kafka", spread(identify))
    shown.add_row("ratio", verdict(ratios(identify, empty), GOAL_RATIO))
    shown.add_row("p99 at half of that, s", _within(of_calls))
    shown.add_row(f"p99 of {MEMBERS_A_BATCH:,} members at {BATCHES_A_SECOND} requests/s, s", _within(of_batches))
    console.print(shown)


def _within(seconds: list[float]) -> str:
    mark = "reached" if median(seconds) <= GOAL_S else "MISSED"
    return f"{spread(seconds, '.3f')}, goal {GOAL_S}: {mark}"


@asynccontextmanager
async def _empty_server() -> AsyncIterator[str]:
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.empty_server", str(port)]
        process = guard.start(command, log=Path(folder) / "log", cwd=guard.ROOT)
        await _open(port)
        yield _url(port)
        guard.end(process)


@asynccontextmanager
async def _gateway(ground: Ground) -> AsyncIterator[tuple[str, str]]:
    """A gateway's address, and a token that it knows."""
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
            yield _url(port), made.text
        finally:
            gateway.stop()


def _url(port: int) -> str:
    return f"http://{HOST}:{port}"


async def _open(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
