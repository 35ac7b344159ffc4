"""The worker's own HTTP server: `/healthz`, `/readyz`, `/metrics`."""

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

from worker.instruments import Instruments

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S = 2
CONCURRENT_REQUESTS = 50
EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PortTakenError(Exception):
    """The configured address can't be bound. The text names the setting."""


class HttpServer:
    """Serves from `async with` until its end. With port 0 it takes a free one; either way the log says which."""

    def __init__(self, instruments: Instruments, *, host: str, port: int) -> None:
        self._socket = _bound(host, port)
        config = uvicorn.Config(
            _application(instruments),
            lifespan="off",
            log_config=None,
            access_log=False,
            limit_concurrency=CONCURRENT_REQUESTS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        self._server = _Server(config)

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")
        host, port = self._socket.getsockname()[:2]
        log.info("http_server_started", host=host, port=port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.should_exit = True
        await self._serving


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the worker, which drains."""
        yield


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as exc:
        bound.close()
        message = f"http.host and http.port: {host}:{port} can't be used ({exc.strerror}); 0 takes a free port"
        raise PortTakenError(message) from None
    return bound


def _application(instruments: Instruments) -> Starlette:
    metrics, health = instruments

    async def healthz(_: Request) -> Response:
        ok, state = health.live()
        return JSONResponse(state, 200 if ok else 503)

    async def readyz(_: Request) -> Response:
        ok, state = health.ready()
        return JSONResponse(state, 200 if ok else 503)

    async def exposition(_: Request) -> Response:
        return Response(metrics.exposition(), media_type=EXPOSITION_TYPE)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", exposition)])
