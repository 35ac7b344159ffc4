"""The gateway under load: identify calls against its own server with nothing in it, and large batches."""

from __future__ import annotations

import json
from base64 import b64encode
from statistics import median, quantiles
from typing import Any

from tests.benchmarks.contenders import Command, settings
from tests.benchmarks.freshness import member
from tests.benchmarks.ground import MEMBERS_A_BATCH, Ground
from tests.benchmarks.load import Request, evenly, flat_out, until_taken
from tests.benchmarks.tables import console, progress, ratios, spread, table, verdict

CONNECTIONS = 48
SECONDS = 8.0
CLIENT_SIDE_ID = "61a0c0ffee0123456789abcd"
GOAL_RATIO = 0.5
GOAL_S = 0.1
BATCHES_A_SECOND = 50


async def run(ground: Ground, rounds: int) -> None:
    empty, taken, calls, batches = [], [], [], []
    with progress() as bar:
        for _ in bar.track(range(rounds), description="gateway"):
            empty.append(await _empty_rate())
            async with ground.database() as dsn:
                gateway = Command(
                    "gateway", settings=_settings(ground, dsn, await ground.topic(), await ground.topic())
                )
                try:
                    identify, batch = await _identify(gateway), await _batch(gateway)
                    port = await gateway.port("gateway_started")
                    await until_taken(port, identify)
                    await until_taken(port, batch)
                    await flat_out(port, identify, connections=CONNECTIONS, seconds=1)
                    taken.append(await flat_out(port, identify, connections=CONNECTIONS, seconds=SECONDS))
                    calls.append(_p99(await _even(port, identify, taken[-1] / 2)))
                    batches.append(_p99(await _even(port, batch, BATCHES_A_SECOND)))
                finally:
                    gateway.stop()
    shown = table(f"Gateway, {CONNECTIONS} connections, every answer after all replicas have it", "what", "figure")
    shown.add_row("identify calls a second", spread(taken))
    shown.add_row("the same server, empty answers a second", spread(empty))
    shown.add_row("ratio", verdict(ratios(taken, empty), GOAL_RATIO))
    for what, times in (
        ("identify calls at half of that load", calls),
        (f"batches of {MEMBERS_A_BATCH:,} members, {BATCHES_A_SECOND} a second", batches),
    ):
        mark = "reached" if median(times) <= GOAL_S else "MISSED"
        shown.add_row(f"p99, s: {what} (goal {GOAL_S}: {mark})", spread(times, ".3f"))
    console.print(shown)


async def _even(port: int, request: Request, a_second: float) -> list[float]:
    return await evenly(port, request, a_second=a_second, seconds=SECONDS, connections=CONNECTIONS)


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


async def _empty_rate() -> float:
    server = Command(module="tests.benchmarks.empty_gateway")
    try:
        port = await server.port("gateway_started")
        request = _call("Basic none")
        await flat_out(port, request, connections=CONNECTIONS, seconds=1)
        return await flat_out(port, request, connections=CONNECTIONS, seconds=SECONDS)
    finally:
        server.stop()


async def _identify(gateway: Command) -> Request:
    key = await gateway.ran("tokens", "create", "--name", "bench", "--role", "writer", "--feed", "engage", "--json")
    return _call("Basic " + b64encode(f"{json.loads(key)['token']}:".encode()).decode())


def _call(authorization: str) -> Request:
    call = {
        "type": "identify",
        "userId": "user-%012d@example.com",
        "messageId": "personas_%012d",
        "timestamp": "2026-11-20T08:00:00.000Z",
        "traits": {"first_time_shopper": True},
        "context": {
            "personas": {
                "computation_class": "audience",
                "computation_id": "aud_bench",
                "computation_key": "first_time_shopper",
                "namespace": "spa_1",
                "space_id": "spa_1",
            }
        },
    }
    return Request("/v1/identify", authorization, json.dumps(call).encode())


async def _batch(gateway: Command) -> Request:
    token = await gateway.ran("tokens", "create", "--name", "bench", "--role", "writer", "--json")
    batch = {
        "environmentId": CLIENT_SIDE_ID,
        "batch": [
            {"userId": member(place), "cohortId": "bench", "cohortName": "Bench", "value": True}
            for place in range(MEMBERS_A_BATCH)
        ],
    }
    return Request("/api/v2/segment-targets/amplitude", json.loads(token)["token"], json.dumps(batch).encode())


def _settings(ground: Ground, dsn: str, calls: str, batches: str) -> dict[str, Any]:
    said = settings(ground, dsn, calls, "segment")
    feeds = [
        {"name": "engage", "topics": [calls], "format": "segment", "environment": "production"},
        {"name": "any", "topics": [batches], "format": "header", "environment": "production"},
    ]
    environments = [{"key": "production", "client_side_id": CLIENT_SIDE_ID}]
    limits = {"port": 0, "token_requests_per_s": 1_000_000}
    return {**said, "feeds": feeds, "environments": environments, "gateway": limits}
