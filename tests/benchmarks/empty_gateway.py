"""The gateway's server and framework with nothing in them: every POST is answered with an empty 200."""

from __future__ import annotations

import asyncio

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worker.gateway.server import GatewayServer
from worker.logs import setup_logging


async def _answer(_: Request) -> Response:
    return Response()


async def main() -> None:
    setup_logging(format="json")
    app = Starlette(routes=[Route("/v1/identify", _answer, methods=["POST"])])
    async with GatewayServer(app, host="127.0.0.1", port=0):
        await asyncio.Event().wait()


uvloop.run(main())
