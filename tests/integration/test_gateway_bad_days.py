"""The gateway when Kafka, its clients or its operators are at their worst."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import socket
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from deploy.local.servers import Kafka, Postgres
from tests.gateway import GatewayUnderTest, a_batch
from tests.worker_process import Bench, eventually
from worker.gateway.limits import IN_FLIGHT_REQUESTS

TARGET = "/api/v2/segment-targets/amplitude"
SILENT_CONNECTIONS = 10_000


async def published(gateway: GatewayUnderTest) -> list[str]:
    """Every member of every record that Kafka has."""
    return [member["userId"] for each in await gateway.records() for member in json.loads(each.value)["batch"]]


async def test_while_kafka_is_frozen_nothing_is_promised_and_afterwards_it_goes_on(
    gateway: GatewayUnderTest, kafka: Kafka
) -> None:
    await gateway.start()
    token = await gateway.token()
    assert (await gateway.sync(a_batch("before"), token)).status_code == 204

    kafka.suspend()
    try:
        began = time.monotonic()
        answers = await asyncio.gather(*(gateway.sync(a_batch(f"during{each}"), token) for each in range(20)))
        assert time.monotonic() - began < 11
    finally:
        kafka.resume()

    assert {each.status_code for each in answers} == {503}
    assert all(int(each.headers["retry-after"]) > 0 for each in answers)
    assert answers[0].json()["code"] == "service_unavailable"

    async def is_back() -> bool:
        return (await gateway.sync(a_batch("after"), token)).status_code == 204

    await eventually(is_back, 30)
    await gateway.bench.catch_up()
    members = await gateway.bench.members("amplitude-c1")
    assert members.keys() >= {"before", "after"}


async def test_a_broker_that_restarts_costs_no_record_that_was_acknowledged(
    gateway: GatewayUnderTest, kafka: Kafka
) -> None:
    process = await gateway.start()
    token = await gateway.token()
    acknowledged: set[str] = set()
    is_over = False

    async def send(sender: int) -> None:
        number = 0
        while not is_over:
            user = f"u{sender}-{number}"
            if (await gateway.sync(a_batch(user), token)).status_code == 204:
                acknowledged.add(user)
                number += 1
            else:
                await asyncio.sleep(0.1)

    senders = [asyncio.create_task(send(each)) for each in range(4)]
    await asyncio.sleep(1)
    await asyncio.to_thread(kafka.kill)

    async def readiness(code: int) -> bool:
        return (await process.get("/readyz")).status_code == code

    await eventually(lambda: readiness(503))
    assert await process.dependencies() == {"kafka": False, "postgres": True}
    assert (await process.get("/healthz")).status_code == 200
    await asyncio.to_thread(kafka.restart)
    before = len(acknowledged)

    async def goes_on() -> bool:
        return len(acknowledged) > before + 20

    await eventually(goes_on, 30)
    await eventually(lambda: readiness(200))
    is_over = True
    await asyncio.gather(*senders)
    await gateway.bench.catch_up()
    members = await gateway.bench.members("amplitude-c1")
    assert acknowledged - members.keys() == set()


async def test_while_postgres_is_away_known_tokens_go_on_and_others_are_told_to_come_back(
    kafka: Kafka, own_postgres: Postgres, tmp_path: Path
) -> None:
    async with (
        Bench(kafka.bootstrap_servers, own_postgres.dsn, tmp_path) as bench,
        GatewayUnderTest(bench) as gateway,
    ):
        process = await gateway.start()
        token, stranger = await gateway.token(), "cs_aaaaaaaaaaaaaaaa_bbbb"
        assert (await gateway.sync(a_batch("before"), stranger)).status_code == 403
        own_postgres.kill()

        async def stranger_is_told(status: int) -> bool:
            # Meanwhile every post with a known token is taken, as if nothing were.
            assert (await gateway.sync(a_batch("meanwhile"), token)).status_code == 204
            said = await gateway.sync(a_batch("never"), stranger)
            assert said.status_code in (403, 503)
            assert said.status_code == 403 or int(said.headers["retry-after"]) > 0
            return said.status_code == status

        await eventually(lambda: stranger_is_told(503), 15)
        assert (await process.get("/healthz")).status_code == 200
        assert (await process.get("/readyz")).status_code == 200  # of all replicas none would be left
        assert set(await published(gateway)) == {"meanwhile"}

        own_postgres.restart()
        await eventually(lambda: stranger_is_told(403), 30)
        newer = await gateway.token()
        assert (await gateway.sync(a_batch("after"), newer)).status_code == 204
        await bench.reconnect()
        await bench.catch_up()
        assert await bench.members("amplitude-c1") == {"meanwhile": True, "after": True}


async def test_more_requests_than_it_does_at_once_are_told_to_come_back_and_none_is_half_accepted(
    gateway: GatewayUnderTest,
) -> None:
    process = await gateway.start()
    token = await gateway.token()
    address = urlsplit(gateway.url)

    async def begun(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """A request of which the last byte is still to come, and that byte."""
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        body = json.dumps(a_batch(f"u{number}")).encode()
        head = f"POST {TARGET} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[:-1])
        return reader, writer, body[-1:]

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes) -> bytes:
        with suppress(ConnectionError):
            writer.write(rest)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return head.lower()

    async def in_flight(count: int) -> bool:
        return f"gateway_in_flight_requests {count:.1f}\n" in (await process.get("/metrics")).text

    first = [await begun(number) for number in range(IN_FLIGHT_REQUESTS)]
    await eventually(lambda: in_flight(IN_FLIGHT_REQUESTS), 10)
    late = [await begun(number) for number in range(IN_FLIGHT_REQUESTS, IN_FLIGHT_REQUESTS + 20)]
    refused = await asyncio.gather(*(answered(*request) for request in late))
    accepted = await asyncio.gather(*(answered(*request) for request in first))

    assert all(head.startswith(b"http/1.1 503 ") and b"\r\nretry-after: " in head for head in refused)
    assert all(head.startswith(b"http/1.1 204 ") for head in accepted)
    assert Counter(await published(gateway)) == {f"u{number}": 1 for number in range(IN_FLIGHT_REQUESTS)}
    assert await in_flight(0)
    assert (await gateway.sync(a_batch("later"), token)).status_code == 204


async def test_a_topic_that_is_missing_is_named_by_readiness(gateway: GatewayUnderTest) -> None:
    await gateway.bench.delete_topic(gateway.bench.segment_topic)
    started = gateway.bench.start_gateway()

    async def named() -> bool:
        return gateway.bench.segment_topic in (await started.get("/readyz")).text

    await eventually(named)


async def test_a_record_that_is_too_large_for_its_topic_fails_alone(gateway: GatewayUnderTest) -> None:
    await gateway.bench.limit_topic(gateway.topic, "max.message.bytes", "100000")
    await gateway.start()
    token = await gateway.token()
    large = a_batch("large", padding="x" * 300_000)

    assert (await gateway.sync(a_batch("before"), token)).status_code == 204
    assert (await gateway.sync(large, token)).status_code == 413
    assert (await gateway.sync(a_batch("after"), token)).status_code == 204

    answers = await asyncio.gather(
        *(gateway.sync(a_batch(f"u{each}"), token) for each in range(20)), gateway.sync(large, token)
    )
    assert [each.status_code for each in answers] == [204] * 20 + [413]
    assert len(await gateway.records()) == 22


async def test_small_records_are_not_refused_for_what_they_are_sent_with(gateway: GatewayUnderTest) -> None:
    await gateway.bench.limit_topic(gateway.topic, "max.message.bytes", "100000")
    await gateway.start()
    token = await gateway.token()

    answers = await asyncio.gather(
        *(gateway.sync(a_batch(f"u{each}", padding="x" * 5_000), token) for each in range(200))
    )

    assert {each.status_code for each in answers} == {204}
    assert len(await gateway.records()) == 200


async def test_sigterm_under_load_answers_every_request_that_was_accepted(gateway: GatewayUnderTest) -> None:
    process = await gateway.start()
    token = await gateway.token()
    sent: list[str] = []
    answered: list[str] = []
    refused = 0

    async def send(sender: int) -> None:
        nonlocal refused
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
            for number in range(10_000):
                user = f"u{sender}-{number}"
                try:
                    said = await client.post(TARGET, json=a_batch(user), headers={"authorization": token})
                except httpx.ConnectError:
                    return  # nobody listens any more: it was never accepted
                except httpx.HTTPError:
                    refused += 1
                    return
                sent.append(user)
                if said.status_code == 204:
                    answered.append(user)

    async def is_busy() -> bool:
        return len(answered) > 100

    senders = [asyncio.create_task(send(each)) for each in range(16)]
    await eventually(is_busy)
    process.send(signal.SIGTERM)
    await asyncio.gather(*senders)

    assert await process.wait() == 0
    assert refused == 0
    assert len(answered) == len(sent)
    await gateway.bench.catch_up()
    assert set(answered) - (await gateway.bench.members("amplitude-c1")).keys() == set()


async def test_those_who_send_slowly_hold_up_nobody_and_are_let_go(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    token = await gateway.token()
    address = urlsplit(gateway.url)
    head = f"POST {TARGET} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\ncontent-length: 100\r\n\r\n"

    async def slowly(beginning: str, rest: str) -> tuple[bytes, float]:
        """What comes back, and after how many seconds, to one who sends a byte each half second."""
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        began = time.monotonic()
        writer.write(beginning.encode())
        reading = asyncio.create_task(reader.read())
        with suppress(ConnectionError):
            for byte in rest:
                if reading.done():
                    break
                writer.write(byte.encode())
                await writer.drain()
                await asyncio.sleep(0.5)
        answer = b""
        with suppress(ConnectionError):
            answer = await reading
        writer.close()
        return answer, time.monotonic() - began

    slow = asyncio.gather(slowly("", head), slowly(head, "x" * 99), slowly(f"GET {TARGET} HTTP/1.1\r\n", "a" * 99))
    for number in range(20):
        assert (await gateway.sync(a_batch(f"u{number}"), token)).status_code == 204
        await asyncio.sleep(0.1)
    headers, body, endless = await slow

    assert headers[1] < 12
    assert endless[1] < 12
    assert body[0].startswith(b"HTTP/1.1 408 ")
    assert b'"request_timeout"' in body[0]
    assert body[1] < 18


async def test_strangers_who_hold_their_bodies_back_shut_out_nobody(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    key = await gateway.token("--feed", "engage")
    address = urlsplit(gateway.url)
    strangers = [await asyncio.open_connection(address.hostname, address.port) for _ in range(200)]
    for _, writer in strangers:
        writer.write(b"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    await asyncio.sleep(1)

    answer = await gateway.post("/v1/batch", {"writeKey": key, "batch": []})
    for _, writer in strangers:
        writer.close()
    assert answer.status_code == 200


async def test_ten_thousand_connections_that_send_nothing_hold_up_nobody(gateway: GatewayUnderTest) -> None:
    process = await gateway.start()
    token = await gateway.token()
    address = urlsplit(gateway.url)
    silent: list[socket.socket] = []
    try:
        for number in range(SILENT_CONNECTIONS):
            connection = socket.socket()
            connection.settimeout(0)
            with suppress(BlockingIOError):
                connection.connect((address.hostname, address.port))
            silent.append(connection)
            if number % 200 == 0:
                await asyncio.sleep(0.01)
        began = time.monotonic()
        async with httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
            said = await client.post(TARGET, json=a_batch("u1"), headers={"authorization": token})
        assert said.status_code == 204
        assert time.monotonic() - began < 5
        assert psutil.Process(process.pid).num_fds() < SILENT_CONNECTIONS
    finally:
        for connection in silent:
            connection.close()


async def test_a_stranger_may_send_no_more_than_a_key_inside_needs(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    body = b'{"writeKey": "' + b"a" * (1 << 20) + b'"}'

    answer = await gateway.client.post("/v1/identify", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 413
    assert "1048576 bytes" in answer.text


async def test_bombs_cost_their_limit_and_no_more(gateway: GatewayUnderTest) -> None:
    process = await gateway.start()
    token = await gateway.token()
    assert (await gateway.sync(a_batch("u1"), token)).status_code == 204
    before = psutil.Process(process.pid).memory_info().rss
    bomb = gzip.compress(bytes(512 << 20), 9)
    many = gzip.compress(b"") * 50_000

    members = gzip.compress(b'{"batch": [' + b"1," * 4_000_000 + b"1]}")

    for packed, status in ((bomb, 413), (many, 400), (gzip.compress(b"[" * (4 << 20)), 400), (members, 413)):
        began = time.monotonic()
        said = await gateway.post(TARGET, packed, token, {"content-encoding": "gzip"})
        assert said.status_code == status
        assert time.monotonic() - began < 2
    assert psutil.Process(process.pid).memory_info().rss - before < 100 << 20


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("authorization", "TOKEN"), ("authorization", "TOKEN")], b"403"),
        ([("authorization", "TOKEN"), ("content-length", "1"), ("content-length", "2")], b"400"),
        ([("authorization", "TOKEN"), ("content-length", "-1")], b"400"),
        ([("authorization", "TOKEN"), ("transfer-encoding", "chunked"), ("transfer-encoding", "gzip")], b"400"),
        ([("authorization", "TOKEN"), ("content-length", "0"), ("content-encoding", "gzip, gzip")], b"415"),
        ([("authorization", "TOKEN"), ("content-length", "99999999999999999999")], b"413"),
        ([("x-large", "a" * 40_000)], b"431"),
    ],
)
async def test_headers_that_contradict_or_are_too_large_are_refused_in_json(
    gateway: GatewayUnderTest, headers: list[tuple[str, str]], status: bytes
) -> None:
    await gateway.start()
    token = await gateway.token()
    address = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    lines = "".join(f"{name}: {value.replace('TOKEN', token)}\r\n" for name, value in headers)

    writer.write(f"POST {TARGET} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()

    assert head.split()[1] == status
    assert set(json.loads(body)) == {"code", "message"}


async def test_a_client_that_leaves_in_the_middle_is_forgotten(gateway: GatewayUnderTest) -> None:
    process = await gateway.start()
    token = await gateway.token()
    address = urlsplit(gateway.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST {TARGET} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\ncontent-length: 100\r\n\r\n"
    writer.write(f"{head}half".encode())
    await writer.drain()
    writer.close()

    async def is_counted() -> bool:
        return 'code="400",route="segment-targets"' in (await process.get("/metrics")).text

    await eventually(is_counted, 5)
    assert (await gateway.sync(a_batch("u1"), token)).status_code == 204
