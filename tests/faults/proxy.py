"""A TCP proxy between the workers and one server, which can be cut, held, slowed down and reset."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from deploy.local.processes import HOST

CHUNK_BYTES = 1 << 16


class Proxy:
    """Forwards to a port of this machine, for as long as it may."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_cut = False
        self.delay_s = 0.0
        """Each piece that passes waits for so long."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.reset()

    def lead_to(self, target_port: int) -> None:
        """Ends every connection; new ones lead to this port of this machine."""
        self._target_port = target_port
        self.reset()

    def cut(self) -> None:
        """Ends every connection, and each new one at once, until `heal`."""
        self._is_cut = True
        self.reset()

    def hold(self) -> None:
        """Connections stay open and can be made, but nothing passes, until `heal`."""
        self._flows.clear()

    def reset(self) -> None:
        """Ends every connection now."""
        for writer in self._writers:
            with suppress(RuntimeError):  # its loop may be gone
                writer.transport.abort()

    def heal(self) -> None:
        """All passes again."""
        self._is_cut, self.delay_s = False, 0.0
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            target_reader, target_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, target_writer}
        self._writers |= both
        try:
            with suppress(asyncio.CancelledError):  # the campaign is over
                await asyncio.gather(self._pump(reader, target_writer), self._pump(target_reader, writer))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flows.wait()
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()
