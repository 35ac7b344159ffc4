"""`make soak`: for 20 minutes at 70 % of what the workers can do, with a rebalance every half minute.

Memory, open files, tasks, lag and the event loop's lag must be flat: a slope is taken through the samples of each,
after a first part in which pools and caches fill. Exit status 1 if something grew, or was not stored.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean, linear_regression
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.faults.deployment import TOPICS, deployed
from tests.faults.ground import Ground, insisting, locked
from tests.faults.publisher import Publisher
from tests.faults.stream import LARGE_BYTES, Made, Stream
from tests.faults.workers import metrics_of, resources_of
from tests.worker_process import eventually

SHARE = 0.7
STREAM_RECORDS = 20_000
CAPACITY_ROUNDS = 3
"""So many times the stream is drained to learn the capacity."""
SAMPLE_S = 2.0
WARM_UP = 0.2
REBALANCE_S = 30.0
GUEST_S = 5.0
TICK_S = 0.02
SETTLE_S = 60.0
MIB = 1 << 20


class Sample(NamedTuple):
    """The workers at one moment, the worse of them, and what waits for them together."""

    at_s: float
    memory_mib: float
    open_files: float
    tasks: float
    lag_records: float
    loop_lag_s: float


class Flatness(NamedTuple):
    """How one of these went: by how much it may have grown over the whole time, and by how much it did."""

    name: str
    first: float
    last: float
    grew: float
    may_grow: float


async def soak(minutes: float, folder: Path, console: Console) -> list[Flatness]:
    """Raises if what was published is not stored at the end."""
    stream = [
        made
        for made in islice(Stream(1, TOPICS, start_ms=int(time.time() * 1000)), STREAM_RECORDS)
        if len(made.value or b"") < LARGE_BYTES  # of which there would be gigabytes a minute
    ]
    async with deployed(folder, random.Random(1), breakable=False) as ground:
        rate = SHARE * await _capacity(ground, stream)
        console.print(
            f"{rate:,.0f} records/s, which is {SHARE:.0%} of what two workers drain here, {minutes:g} minutes."
        )
        beside = [
            asyncio.create_task(_publish(ground, stream, rate)),
            asyncio.create_task(_rebalance(ground)),
            asyncio.create_task(ground.workers.watch()),
        ]
        try:
            samples = await _sampled(ground, minutes * 60, console)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        await _settled(ground)
        if ground.workers.complaints:
            raise RuntimeError("; ".join(ground.workers.complaints))
    return flatness(samples, rate)


async def _capacity(ground: Ground, stream: Sequence[Made]) -> float:
    """Records a second that are committed, of a backlog, once the first part of it is."""
    await _settled(ground)
    async with locked(ground), Publisher(ground.kafka.bootstrap_servers) as publisher:
        for made in islice(cycle(stream), CAPACITY_ROUNDS * len(stream)):
            await publisher.send(made, timestamp_ms=int(time.time() * 1000))
    waiting = await _waiting(ground)
    await _settled(ground, most=round((1 - WARM_UP) * waiting))
    started, left = time.monotonic(), await _waiting(ground)
    await _settled(ground)
    return left / (time.monotonic() - started)


async def _publish(ground: Ground, stream: Sequence[Made], rate: float) -> None:
    """The stream again and again, each time as new records."""
    async with Publisher(ground.kafka.bootstrap_servers) as publisher:
        started, sent = time.monotonic(), 0
        records = cycle(stream)
        while True:
            due = round((time.monotonic() - started) * rate)
            for made in islice(records, due - sent):
                await publisher.send(made, timestamp_ms=int(time.time() * 1000))
            sent = due
            await asyncio.sleep(TICK_S)


async def _rebalance(ground: Ground) -> None:
    while True:
        await asyncio.sleep(REBALANCE_S - GUEST_S)
        guest = ground.workers.start_guest()
        await asyncio.sleep(GUEST_S)
        await ground.workers.stop_guest(guest, signal.SIGTERM)


async def _sampled(ground: Ground, seconds: float, console: Console) -> list[Sample]:
    samples: list[Sample] = []
    started = time.monotonic()
    with Progress(console=console) as bar:
        task = bar.add_task("soak", total=seconds)
        while (at_s := time.monotonic() - started) < seconds:
            bar.update(task, completed=at_s)
            samples.append(await _sample(ground, at_s))
            await asyncio.sleep(SAMPLE_S)
    return samples


async def _sample(ground: Ground, at_s: float) -> Sample:
    held = [await resources_of(pod) for pod in ground.workers.pods]
    measured = [await metrics_of(pod) for pod in ground.workers.pods]
    return Sample(
        at_s,
        max(each.memory_bytes for each in held) / MIB,
        max(each.open_files for each in held),
        max(each.tasks for each in held),
        sum(each.get("consumer_lag_records", 0.0) for each in measured),
        max(each["event_loop_lag_seconds"] for each in measured),
    )


async def _settled(ground: Ground, *, most: int = 0) -> None:
    """Returns when all that stands in the topics is committed, but for so many records."""

    async def settled() -> bool:
        return await _waiting(ground) <= most

    await eventually(settled, SETTLE_S)


async def _waiting(ground: Ground) -> int:
    """Records, and marks, that are not committed yet."""
    ends, committed = await insisting(ground.topics.ends), await insisting(ground.topics.committed)
    return sum(max(0, end - committed.get(tp, 0)) for tp, end in ends.items())


def flatness(samples: Sequence[Sample], rate: float) -> list[Flatness]:
    """By how much each grew along a straight line through its samples, after the warm-up."""
    may_grow = {
        "memory, MiB": 10.0,
        "open files": 3.0,
        "tasks": 3.0,
        "lag, records": rate,  # one second's
        "event loop lag, s": 0.1,
    }
    kept = [sample for sample in samples if sample.at_s >= WARM_UP * samples[-1].at_s]
    times = [sample.at_s for sample in kept]
    tenth = max(1, len(kept) // 10)
    found = []
    for place, (name, most) in enumerate(may_grow.items(), 1):
        values = [sample[place] for sample in kept]
        slope, _ = linear_regression(times, values)
        grew = slope * (times[-1] - times[0])
        found.append(Flatness(name, fmean(values[:tenth]), fmean(values[-tenth:]), grew, most))
    return found


def main() -> int:
    """Soaks, and shows the slopes."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    minutes = parser.parse_args().minutes
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="cohort-sync-soak-") as folder:
        found = asyncio.run(soak(minutes, Path(folder), console))
    table = Table(title=f"{minutes:g} minutes, the first {WARM_UP:.0%} not counted")
    for column in ("what", "first tenth", "last tenth", "slope, an hour", "grew", "may grow", ""):
        table.add_column(column, justify="right" if column else "left")
    counted_h = minutes / 60 * (1 - WARM_UP)
    for name, first, last, grew, most in found:
        verdict = "flat" if grew <= most else "[red]GROWS[/]"
        table.add_row(name, *(f"{value:,.2f}" for value in (first, last, grew / counted_h, grew, most)), verdict)
    console.print(table)
    return int(any(each.grew > each.may_grow for each in found))


if __name__ == "__main__":
    sys.exit(main())
