"""One connection to the gateway: its parts come within bounded times, however they are cut, and an end is an answer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.gateway.answers import JSON_TYPE

HEADERS_WITHIN_S = 10.0
REQUEST_WITHIN_S = 60.0
"""From the headers to the end of the answer; each part has a shorter limit of its own."""
MOST_CONNECTIONS = 8_000
TURN_BYTES = 8 << 10


class ConnectionConfig(uvicorn.Config):
    """What all connections of one server share."""

    malformed: Callable[[], str]
    """Called for what is no HTTP, and gives the id of its answer."""
    idle: OrderedDict[BoundedConnection, None]
    """Connections without a request in progress, the one that is longest so first."""


def _is_chunked(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" for name, _ in headers)


class BoundedConnection(H11Protocol):
    """Headers must come within some seconds, and an answer too; where connections are many, idle ones make room."""

    config: ConnectionConfig

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's own has it so
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._request: object = None
        self._unread = b""
        self._turn: asyncio.Handle | None = None
        self.config.idle[self] = None
        if len(self.connections) > MOST_CONNECTIONS and self.config.idle:
            oldest, _ = self.config.idle.popitem(last=False)
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
            self._note_end_of_body()
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
        self.config.idle.pop(self, None)
        if not self.cycle.response_complete:
            self._expect_within(REQUEST_WITHIN_S)
        if _is_chunked(self.headers) and any(name == b"content-length" for name, _ in self.headers):
            # A proxy may have seen its end elsewhere: what follows could be another's request.
            self.cycle.keep_alive = False

    def _note_end_of_body(self) -> None:
        """Of one that was answered before it was all there: nothing is expected any more but a further request."""
        is_between = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if is_between and self._request is not None and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.config.idle[self] = None
        super().on_response_complete()
        self._note_request()  # of one that came together with the last
        if self._unread:
            self._read_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.config.idle.pop(self, None)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """What is no HTTP is answered as everything else is."""
        body = b'{"code":"invalid_request","message":"This is no valid HTTP request"}'
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
            b"connection: close\r\n\r\n%b" % (JSON_TYPE.encode(), len(body), self.config.malformed().encode(), body)
        )
        self.transport.close()

    def _expect_within(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)
