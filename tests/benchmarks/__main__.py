"""`make bench`: runs the benchmarks and prints their tables. Names choose some, as in `make bench BENCH=store`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
from collections.abc import Awaitable, Callable

from rich.console import Console

from tests.benchmarks import drain, end_to_end, freshness, gateway, parsing, projection, scale, store_write
from tests.benchmarks.ground import Ground, ground

BENCHMARKS: dict[str, Callable[[Ground, int], Awaitable[None]]] = {
    "store": store_write.run,
    "end-to-end": end_to_end.run,
    "drain": drain.run,
    "freshness": freshness.run,
    "parse": parsing.run,
    "projection": projection.run,
    "gateway": gateway.run,
    "scale": scale.run,
}


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("benchmarks", nargs="*", choices=[*BENCHMARKS, []], help="all of them where none is named")
    arguments.add_argument("--rounds", type=int, default=5, help="alternated rounds; each figure is their median")
    chosen = arguments.parse_args()
    console = Console()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    console.print(f"{os.cpu_count()} cores, Python {platform.python_version()}, load before the start {load}")
    with ground() as own:
        await own.prepare()
        for name in chosen.benchmarks or BENCHMARKS:
            await BENCHMARKS[name](own, chosen.rounds)


asyncio.run(main())
