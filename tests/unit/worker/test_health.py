"""What probes are told, over real HTTP on a free port."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import pytest
from structlog.testing import capture_logs

from consumers.feeds import Feed
from worker import http_server
from worker.health import PROGRESS_WITHIN_S, STOPPING, Health
from worker.http_server import HttpServer, PortTakenError
from worker.instruments import Instruments
from worker.metrics import Metrics


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Probes(NamedTuple):
    """A process's state, and a client of its HTTP server."""

    health: Health
    clock: Clock
    client: httpx.AsyncClient
    port: int


@pytest.fixture
async def probes() -> AsyncIterator[Probes]:
    clock = Clock()
    health = Health(clock=clock)
    instruments = Instruments(Metrics([Feed(name="webhook", format="segment", topics=("t",))]), health)
    with capture_logs() as logs:
        server = HttpServer(*instruments, host="127.0.0.1", port=0)
        await server.__aenter__()
    port = logs[0]["port"]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield Probes(health, clock, client, port)
    await server.__aexit__(None, None, None)


async def say(port: int, text: bytes) -> bytes:
    """Sends this as it is, and returns all that comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(text)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    except ConnectionResetError:
        writer.close()
    return answer


async def test_a_process_that_waits_for_its_store_at_the_start_is_live(probes: Probes) -> None:
    probes.health.check_failed("postgres", "down")
    probes.clock.now += 3_600
    answer = await probes.client.get("/healthz")
    assert (answer.status_code, answer.json()["live"]) == (200, True)


async def test_a_loop_without_progress_is_not_live_and_the_body_says_since_when(probes: Probes) -> None:
    probes.health.progress()
    probes.clock.now += PROGRESS_WITHIN_S + 12
    answer = await probes.client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["why"] == "no progress for 42 s, expected within 30 s"
    probes.health.progress()
    assert (await probes.client.get("/healthz")).status_code == 200


async def test_a_store_that_is_down_leaves_the_process_live(probes: Probes) -> None:
    probes.health.progress()
    probes.health.check_failed("postgres", "ConnectionRefusedError")
    assert (await probes.client.get("/healthz")).status_code == 200


async def test_a_process_is_ready_once_everything_that_it_needs_has_answered(probes: Probes) -> None:
    before = await probes.client.get("/readyz")
    assert before.status_code == 503
    assert before.json()["checks"]["kafka"] == {"ok": False, "why": "not reached yet"}
    for name in ("assignment", "postgres", "kafka"):
        probes.health.check_passed(name)
    after = await probes.client.get("/readyz")
    assert (after.status_code, after.json()["ready"]) == (200, True)


async def test_readiness_says_which_check_fails_and_why(probes: Probes) -> None:
    for name in ("assignment", "postgres", "kafka"):
        probes.health.check_passed(name)
    probes.health.check_failed("dead_letter_topic", "UnknownTopicOrPartitionError")
    answer = await probes.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["dead_letter_topic"] == {"ok": False, "why": "UnknownTopicOrPartitionError"}
    assert answer.json()["checks"]["postgres"] == {"ok": True}


async def test_metrics_are_given_in_the_text_format(probes: Probes) -> None:
    answer = await probes.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'cohort_sync_records_total{feed="webhook"} 0.0' in answer.text


async def test_metrics_say_which_dependency_answers_and_nothing_of_one_that_was_not_reached_yet(probes: Probes) -> None:
    async def dependencies() -> list[str]:
        text = (await probes.client.get("/metrics")).text
        return [line for line in text.splitlines() if line.startswith("cohort_sync_dependency_up{")]

    assert await dependencies() == []
    probes.health.check_failed("postgres", "ConnectionRefusedError")
    assert await dependencies() == ['cohort_sync_dependency_up{dependency="postgres"} 0.0']
    probes.health.check_passed("postgres")
    probes.health.check_failed("kafka", "KafkaConnectionError")
    probes.health.check_failed(STOPPING, "the process was asked to end")
    assert await dependencies() == [
        'cohort_sync_dependency_up{dependency="postgres"} 1.0',
        'cohort_sync_dependency_up{dependency="kafka"} 0.0',
    ]


async def test_a_taken_port_is_an_error_that_names_the_setting(probes: Probes) -> None:
    with pytest.raises(PortTakenError, match=rf"http\.port: 127\.0\.0\.1:{probes.port} can't be used.*port 0"):
        HttpServer(Metrics(), Health(), host="127.0.0.1", port=probes.port)


async def test_a_host_that_is_not_ours_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(PortTakenError, match=r"http\.port: 192\.0\.2\.1:9400 can't be used"):
        HttpServer(Metrics(), Health(), host="192.0.2.1", port=9400)


async def test_endless_headers_are_refused(probes: Probes) -> None:
    assert b"400 Bad Request" in await say(probes.port, b"GET /healthz HTTP/1.1\r\nx: " + b"a" * (1 << 16))


async def test_a_connection_that_never_finishes_its_request_is_closed(
    monkeypatch: pytest.MonkeyPatch, probes: Probes
) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_LIFE_S", 0.05)
    assert await say(probes.port, b"GET /healthz HTTP/1.1\r\n") == b""


async def test_after_the_end_the_port_is_free_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for _ in range(2):
        async with HttpServer(Metrics(), Health(), host="127.0.0.1", port=port):
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"http://127.0.0.1:{port}/healthz")
            assert json.loads(answer.text)["live"]
