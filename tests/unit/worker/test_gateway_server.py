"""The gateway's HTTP server, against those who know HTTP too well."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from worker.gateway import connection
from worker.gateway.server import GatewayServer

CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Tells how large the body was, or at /never nothing."""
    request = Request(scope, receive, send)
    if request.url.path == "/early":
        await Response("early", 401)(scope, receive, send)
        return
    while request.url.path == "/never":
        if (await receive())["type"] == "http.disconnect":
            return
    await Response(str(len(await request.body())))(scope, receive, send)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with GatewayServer(app, host="127.0.0.1", port=port, malformed=lambda: "id-1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"])
async def test_a_body_of_the_smallest_chunks_arrives_and_lets_others_have_their_turn(before: bytes) -> None:
    async with connected() as (reader, writer):
        gaps = []

        async def others() -> None:
            while True:
                began = time.thread_time()
                await asyncio.sleep(0)
                gaps.append(time.thread_time() - began)

        watching = asyncio.create_task(others())
        writer.write(before + CHUNKED + b"\r\n" + b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"100000"), 30)
        watching.cancel()

    assert answer.startswith(b"HTTP/1.1 200")
    assert max(gaps) < 0.05


async def test_a_large_body_and_requests_that_come_together_are_answered_in_order() -> None:
    async with connected() as (reader, writer):
        for size in (1_000_000, 3, 0):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + b"a" * size)
        for told in (b"1000000", b"3", b"0"):
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(len(told)) == told


async def test_a_request_that_came_together_with_another_has_no_longer_than_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "REQUEST_WITHIN_S", 0.2)
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /never HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).count(b"HTTP/1.1") == 1


async def test_what_follows_a_request_of_two_lengths_is_not_answered() -> None:
    async with connected() as (reader, writer):
        writer.write(CHUNKED + b"content-length: 3\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).count(b"HTTP/1.1") == 1


async def test_a_connection_whose_body_was_answered_before_its_end_is_kept_for_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "HEADERS_WITHIN_S", 0.3)
    async with connected() as (reader, writer):
        writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
        assert (await asyncio.wait_for(reader.readuntil(b"early"), 5)).startswith(b"HTTP/1.1 401")
        writer.write(b"def")
        await asyncio.sleep(0.6)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 200")


async def test_a_body_that_was_answered_before_its_end_must_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADERS_WITHIN_S", 0.3)
    async with connected() as (reader, writer):
        writer.write(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
        await asyncio.wait_for(reader.readuntil(b"early"), 5)
        writer.write(b"d")
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_what_is_no_http_is_answered_with_an_id() -> None:
    async with connected() as (reader, writer):
        writer.write(b"NO HTTP\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"x-request-id: id-1\r\n" in answer
