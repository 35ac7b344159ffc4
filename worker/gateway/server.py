"""The gateway's HTTP server: bounded connections, headers and times, and an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.gateway.answers import JSON_TYPE
from worker.gateway.routing import HEADER_BYTES
from worker.http_server import QuietServer, listening_socket

log = structlog.get_logger(__name__)

HEADERS_WITHIN_S = 10.0
REQUEST_WITHIN_S = 60.0
"""From the headers to the end of the answer; each part has a shorter limit of its own."""
KEEP_ALIVE_S = 65
"""Longer than load balancers keep an idle connection, so that it is they who close it."""
MOST_CONNECTIONS = 8_000
OPEN_FILES = 65_536
TURN_BYTES = 8 << 10
STOP_TIMEOUT_S = 30
DRAIN_S = 0.5
LAST_REQUESTS_S = 0.2


class GatewayServer:
    """Serves from `async with` until its end. With port 0 it takes a free one; either way the log says which."""

    def __init__(self, app: ASGIApp, *, host: str, port: int) -> None:
        _allow_open_files()
        # What is no HTTP is answered, and a line for each would be a stranger's to multiply.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._socket = listening_socket(host, port, section="gateway")
        config = uvicorn.Config(
            app,
            http=_BoundedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=2_048,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        self._server = _GentleServer(config)

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="gateway")
        host, port = self._socket.getsockname()[:2]
        log.info("gateway_started", host=host, port=port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.should_exit = True
        await self._serving


class _GentleServer(QuietServer):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but who waits to be accepted would be reset with the listening socket: they come in first."""
        waiting = [listening.dup() for listening in sockets or ()]
        for server in self.servers:
            server.close()
        for listening in waiting:
            await self._accept_all(listening)
        await asyncio.sleep(LAST_REQUESTS_S)
        await super().shutdown(sockets)

    async def _accept_all(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listening.setblocking(False)  # noqa: FBT003 - as the standard library has it
        with listening, suppress(BlockingIOError):
            while True:
                connection, _ = listening.accept()
                await loop.connect_accepted_socket(self._connection, connection)

    def _connection(self) -> _BoundedConnection:
        return _BoundedConnection(config=self.config, server_state=self.server_state, app_state={})


def _allow_open_files() -> None:
    """Each connection is one; what a shell allows is often no more than a thousand."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_chunked(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" for name, _ in headers)


_idle: OrderedDict[_BoundedConnection, None] = OrderedDict()
"""Connections without a request in progress, the one that is longest so first."""


class _BoundedConnection(H11Protocol):
    """Headers must come within some seconds, and an answer too; where connections are many, idle ones make room."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's own has it so
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._request: object = None
        self._unread = b""
        self._turn: asyncio.Handle | None = None
        _idle[self] = None
        if len(self.connections) > MOST_CONNECTIONS and _idle:
            oldest, _ = _idle.popitem(last=False)
            oldest.transport.abort()
        self._expect_within(HEADERS_WITHIN_S)

    def data_received(self, data: bytes) -> None:
        is_turn = not self._unread
        self._unread += data
        if is_turn:
            self._read()

    def _read(self) -> None:
        """Some of what has come. Of the smallest chunks it may be tens of thousands, and others want their turn."""
        self._turn = None
        while self._unread and not self.transport.is_closing():
            if self.conn.their_state is h11.DONE:  # this came together with a request that is not answered yet
                self.transport.pause_reading()
                return
            if self._deadline is None:  # the first bytes of a further request
                self._expect_within(HEADERS_WITHIN_S)
            turn, self._unread = self._unread[:TURN_BYTES], self._unread[TURN_BYTES:]
            super().data_received(turn)
            self._note_request()
            if self._unread and _is_chunked(self.headers or ()):
                self.transport.pause_reading()
                self._read_soon()
                return
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _read_soon(self) -> None:
        if self._turn is None:
            self._turn = self.loop.call_soon(self._read)

    def _note_request(self) -> None:
        """One that has begun must be answered in time, and its connection is not idle."""
        if self.cycle is self._request:
            return
        self._request = self.cycle
        _idle.pop(self, None)
        if not self.cycle.response_complete:
            self._expect_within(REQUEST_WITHIN_S)
        if _is_chunked(self.headers) and any(name == b"content-length" for name, _ in self.headers):
            # A proxy may have seen its end elsewhere: what follows could be another's request.
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        _idle[self] = None
        super().on_response_complete()
        self._note_request()  # of one that came together with the last
        if self._unread:
            self._read_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        _idle.pop(self, None)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """What is no HTTP is answered as everything else is."""
        body = b'{"code":"invalid_request","message":"This is no valid HTTP request"}'
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (JSON_TYPE.encode(), len(body), body)
        )
        self.transport.close()

    def _expect_within(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)
