"""An HTTP server before DynamoDB, which answers some requests by itself, as a DynamoDB in trouble does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NamedTuple, Self

import httpx

from deploy.local.processes import HOST

PASSED_ON = ("x-amz-date", "authorization", "content-type")
ERROR = "com.amazonaws.dynamodb.v20120810#"


class Answer(NamedTuple):
    """What DynamoDB says to one request."""

    status: int
    body: Mapping[str, Any]


class Request(NamedTuple):
    """What it is asked, such as UpdateItem."""

    operation: str
    body: dict[str, Any]


THROTTLED = Answer(
    HTTPStatus.BAD_REQUEST, {"__type": f"{ERROR}ProvisionedThroughputExceededException", "message": "Slow down"}
)
TOO_LARGE = Answer(
    HTTPStatus.BAD_REQUEST,
    {
        "__type": "com.amazon.coral.validate#ValidationException",
        "message": "Item size to update has exceeded the maximum allowed size",
    },
)
AT_FAULT = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"__type": f"{ERROR}InternalServerError", "message": "Sorry"})


async def _nothing_instead(_request: Request) -> Answer | None:
    return None


class DynamoProxy:
    """Passes requests on, but for those that `instead` has an answer for."""

    def __init__(self, endpoint_url: str) -> None:
        self._target = endpoint_url
        self._serving: set[asyncio.Task[None]] = set()
        self.instead: Callable[[Request], Awaitable[Answer | None]] = _nothing_instead
        self.requests: list[Request] = []
        """All that came, in their order."""

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def forward(self, request: Request) -> Answer:
        """What DynamoDB itself says."""
        headers = {"x-amz-target": f"DynamoDB_20120810.{request.operation}", **self._as}
        response = await self._client.post(self._target, json=request.body, headers=headers)
        return Answer(response.status_code, response.json())

    async def __aenter__(self) -> Self:
        self._as: dict[str, str] = {}
        self._client = httpx.AsyncClient()
        self._server = await asyncio.start_server(self._accepted, HOST, 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._client.aclose()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        # The signature names the region, under which moto keeps the table.
        self._as = {name: headers[name] for name in PASSED_ON}
        request = Request(headers["x-amz-target"].rpartition(".")[2], json.loads(body))
        self.requests.append(request)
        status, said = await self.instead(request) or await self.forward(request)
        content = json.dumps(said).encode()
        head = (
            f"HTTP/1.1 {status} -\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        await writer.drain()
