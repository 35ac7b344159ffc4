"""Five million new keys in one go: does the rate hold, and does the worker's memory stay where it is?"""

from __future__ import annotations

import asyncio
from statistics import median

import psutil

from tests.benchmarks.contenders import Worker
from tests.benchmarks.ground import Ground, rate_between, timeline
from tests.benchmarks.tables import console, progress, ratios, spread, table, verdict

MILLION = 1_000_000
DELTAS = 5 * MILLION
MEMORY_LIMIT_MIB = 300


async def run(ground: Ground, rounds: int) -> None:
    topic = await ground.topic_of_webhooks(DELTAS)
    second, fifth, memory, memory_at_one_million = [], [], [], []
    with progress() as bar:
        for _ in bar.track(range(rounds), description="drain"):
            async with ground.database() as dsn:
                worker = Worker(ground, dsn, topic, "amplitude-webhook")
                watching = asyncio.create_task(peak_memory_mib(worker.pid))
                try:
                    await timeline(dsn, MILLION)
                    memory_at_one_million.append(psutil.Process(worker.pid).memory_info().rss / 2**20)
                    seen = await timeline(dsn, DELTAS)
                finally:
                    watching.cancel()
                    worker.stop()
                second.append(rate_between(seen, MILLION, 2 * MILLION))
                fifth.append(rate_between(seen, 4 * MILLION, DELTAS))
                memory.append(await _peak(watching))
    shown = table("Draining 5 million new keys, a million rows before", "what", "figure")
    shown.add_row("rate over the second million, deltas/s", spread(second))
    shown.add_row("rate over the fifth million, deltas/s", spread(fifth))
    shown.add_row("fifth / second", verdict(ratios(fifth, second), 0.80))
    shown.add_row("worker's memory after 1 million, MiB", spread(memory_at_one_million))
    mark = "kept" if max(memory) < MEMORY_LIMIT_MIB else "BROKEN"
    shown.add_row(
        f"worker's peak memory, MiB (limit {MEMORY_LIMIT_MIB}: {mark})",
        f"{median(memory):.0f}, worst {max(memory):.0f}",
    )
    console.print(shown)


async def peak_memory_mib(pid: int) -> float:
    """The peak of the resident memory until cancelled."""
    peak = 0.0
    process = psutil.Process(pid)
    try:
        while True:
            peak = max(peak, process.memory_info().rss / 2**20)
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return peak


async def _peak(watching: asyncio.Task[float]) -> float:
    return await watching
