"""Puts records of the stream into their topics."""

from __future__ import annotations

import asyncio
from typing import Self

from aiokafka import AIOKafkaProducer

from tests.faults.stream import Made

STOP_S = 30.0


class Publisher:
    """A producer that goes on whatever the broker does, past the proxy."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers

    async def __aenter__(self) -> Self:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap_servers,
            enable_idempotence=True,
            max_request_size=4 << 20,
            # aiokafka refuses a null value without a key; other producers don't.
            key_serializer=lambda key: key or None,
        )
        await self._producer.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.wait_for(self._producer.stop(), STOP_S)

    async def send(self, made: Made, *, timestamp_ms: int | None = None) -> None:
        """Sends one record, with its own time or another."""
        await self._producer.send(
            made.topic,
            made.value,
            key=b"",
            partition=made.partition,
            timestamp_ms=timestamp_ms or made.timestamp_ms,
            headers=list(made.headers),
        )
