"""The same server and framework as the gateway's, answering an empty 200: what the gateway is compared with."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worker.gateway.server import GatewayServer


async def empty(_: Request) -> Response:
    return Response()


async def main(port: int) -> None:
    app = Starlette(routes=[Route("/v1/identify", empty, methods=["POST"])])
    async with GatewayServer(app, host="127.0.0.1", port=port, malformed=str):
        await asyncio.Event().wait()


uvloop.run(main(int(sys.argv[1])))
