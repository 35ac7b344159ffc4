"""The process's own HTTP server: `/healthz`, `/readyz`, `/metrics`.

It shares the event loop, so that an answer proves that the loop comes round. Whoever can reach it can cost little:
headers, requests at a time and the life of a connection are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Self

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.health import Health
from worker.process_metrics import ProcessMetrics

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S = 2
CONCURRENT_REQUESTS = 50
CONNECTION_LIFE_S = 15.0
HEADER_BYTES = 16 << 10
EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PortTakenError(OSError):
    """The configured address can't be bound. The text names the setting."""


class HttpServer:
    """Serves from `async with` until its end. With port 0 it takes a free one; either way the log says which."""

    def __init__(self, metrics: ProcessMetrics, health: Health, *, host: str, port: int) -> None:
        self._socket = listening_socket(host, port, section="http")
        config = uvicorn.Config(
            _application(metrics, health),
            http=_BriefConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=[("connection", "close")],
            limit_concurrency=CONCURRENT_REQUESTS,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        self._server = QuietServer(config)

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")
        host, port = self._socket.getsockname()[:2]
        log.info("http_server_started", host=host, port=port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.should_exit = True
        await self._serving


class QuietServer(uvicorn.Server):
    """A server within a process that has more to do."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, which drains."""
        yield


class _BriefConnection(H11Protocol):
    """One request, and a few seconds for all of it: uvicorn itself would wait for headers for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's own has it so
        super().connection_made(transport)
        self._end = self.loop.call_later(CONNECTION_LIFE_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)


def listening_socket(host: str, port: int, *, section: str) -> socket.socket:
    """A socket that listens there; from now on nobody's connection is refused. `section` has host and port."""
    bound: socket.socket | None = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError as exc:
        if bound:
            bound.close()
        where = f"{section}.host and {section}.port: {host}:{port}"
        raise PortTakenError(
            f"{where} can't be used ({exc.strerror}): choose others, or port 0 for a free one"
        ) from None
    return bound


def _application(metrics: ProcessMetrics, health: Health) -> Starlette:
    async def healthz(_: Request) -> Response:
        ok, state = health.live()
        return JSONResponse(state, 200 if ok else 503)

    async def readyz(_: Request) -> Response:
        ok, state = health.ready()
        return JSONResponse(state, 200 if ok else 503)

    async def exposition(_: Request) -> Response:
        metrics.set_dependencies(health.dependencies())  # they are asked again every few seconds, by whoever needs them
        return Response(metrics.exposition(), media_type=EXPOSITION_TYPE)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", exposition)])
