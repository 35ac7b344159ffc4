"""The gateway's HTTP server: bounded connections, headers and times, and an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import structlog
from starlette.types import ASGIApp

from worker.gateway.connection import BoundedConnection, ConnectionConfig
from worker.gateway.routing import HEADER_BYTES
from worker.http_server import QuietServer, listening_socket

log = structlog.get_logger(__name__)

KEEP_ALIVE_S = 65
"""Longer than load balancers keep an idle connection, so that it is they who close it."""
OPEN_FILES = 65_536
STOP_TIMEOUT_S = 30
DRAIN_S = 0.5
LAST_REQUESTS_S = 0.2


class GatewayServer:
    """Serves from `async with` until its end. With port 0 it takes a free one; either way the log says which."""

    def __init__(self, app: ASGIApp, *, host: str, port: int, malformed: Callable[[], str]) -> None:
        _allow_open_files()
        # What is no HTTP is answered, and a line for each would be a stranger's to multiply.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._socket = listening_socket(host, port, section="gateway")
        config = ConnectionConfig(
            app,
            http=BoundedConnection,
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
        config.malformed = malformed
        config.idle = OrderedDict()
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

    def _connection(self) -> BoundedConnection:
        return BoundedConnection(config=self.config, server_state=self.server_state, app_state={})


def _allow_open_files() -> None:
    """Each connection is one; what a shell allows is often no more than a thousand."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
