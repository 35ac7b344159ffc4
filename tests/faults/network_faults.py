"""Faults of the network between the workers and their servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.faults.ground import Ground, fault, hold
from tests.faults.proxy import Proxy


@fault
async def network_to_postgres_cut(ground: Ground) -> None:
    """Connections end, and can't be made."""
    await _proxied(ground, ground.postgres_proxy, Proxy.cut)


@fault
async def network_to_kafka_cut(ground: Ground) -> None:
    """Likewise."""
    await _proxied(ground, ground.kafka_proxy, Proxy.cut)


@fault
async def network_to_postgres_held(ground: Ground) -> None:
    """Half-open: what is sent is lost in silence."""
    await _proxied(ground, ground.postgres_proxy, Proxy.hold)


@fault
async def network_to_kafka_held(ground: Ground) -> None:
    """Likewise."""
    await _proxied(ground, ground.kafka_proxy, Proxy.hold)


@fault
async def network_to_valkey_cut(ground: Ground) -> None:
    """Likewise."""
    await _proxied(ground, ground.valkey_proxy, Proxy.cut)


@fault
async def network_to_valkey_held(ground: Ground) -> None:
    """Likewise."""
    await _proxied(ground, ground.valkey_proxy, Proxy.hold)


@fault
async def network_slow(ground: Ground) -> None:
    """Each piece takes a tenth of a second more, both ways, everywhere."""
    proxies = (ground.kafka_proxy, ground.postgres_proxy, ground.valkey_proxy)
    for proxy in proxies:
        proxy.delay_s = 0.1
    await hold(ground)
    for proxy in proxies:
        proxy.heal()


@fault
async def connections_reset(ground: Ground) -> None:
    """All of them, a few times."""
    for _ in range(5):
        ground.kafka_proxy.reset()
        ground.postgres_proxy.reset()
        ground.valkey_proxy.reset()
        await asyncio.sleep(ground.random.uniform(0.1, 1))


async def _proxied(ground: Ground, proxy: Proxy, act: Callable[[Proxy], None]) -> None:
    act(proxy)
    await hold(ground)
    proxy.heal()
