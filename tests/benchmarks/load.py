"""HTTP load over connections that stay open: as fast as is answered, or evenly at a rate. Each answer must be a 2xx."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

ATTEMPTS = 100
HEAD_END = b"\r\n\r\n"


class RefusedError(Exception):
    """A request was not taken."""


class Request(NamedTuple):
    """What is sent again and again; `%012d` in the body is the number of the request."""

    path: str
    authorization: str
    body: bytes

    def packed(self, number: int) -> bytes:
        body = self.body.replace(b"%012d", b"%012d" % number)
        head = f"POST {self.path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: {self.authorization}\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def until_taken(port: int, request: Request) -> None:
    """Returns once such a request is answered as it should be: a token is known a second after it was made."""
    for attempt in range(ATTEMPTS):
        try:
            await flat_out(port, request, connections=1, seconds=0.01)
        except RefusedError:
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def flat_out(port: int, request: Request, *, connections: int, seconds: float) -> float:
    """Requests a second when each connection sends the next one as soon as it is answered."""
    numbers = count()
    started = time.perf_counter()
    done = await asyncio.gather(
        *(_one_after_another(port, request, numbers, started + seconds) for _ in range(connections))
    )
    return sum(done) / (time.perf_counter() - started)


async def evenly(port: int, request: Request, *, a_second: float, seconds: float, connections: int) -> list[float]:
    """How long each answer took, in seconds, from the moment at which its request was due."""
    due: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()
    taken: list[float] = []

    async def serve() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (one := await due.get()) is not None:
            number, at = one
            await _exchange(reader, writer, request.packed(number))
            taken.append(time.perf_counter() - at)
        writer.close()

    serving = [asyncio.create_task(serve()) for _ in range(connections)]
    started = time.perf_counter()
    for number in range(round(a_second * seconds)):
        at = started + number / a_second
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        due.put_nowait((number, at))
    for _ in serving:
        due.put_nowait(None)
    await asyncio.gather(*serving)
    return taken


async def _one_after_another(port: int, request: Request, numbers: Iterator[int], until: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done = 0
    while time.perf_counter() < until:
        await _exchange(reader, writer, request.packed(next(numbers)))
        done += 1
    writer.close()
    return done


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = await reader.readuntil(HEAD_END)
    if not head.startswith(b"HTTP/1.1 2"):
        raise RefusedError(head[:200])
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.partition(b":")[2]))
