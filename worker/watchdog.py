"""The watchdog: a process whose loop no longer comes round is worth less than a new one."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from itertools import chain
from types import FrameType
from typing import Self

import structlog

from worker.health import Health
from worker.process_metrics import ProcessMetrics

log = structlog.get_logger(__name__)

BEAT_EVERY_S = 0.5
LAG_WINDOW_S = 30.0
"""So long the longest lag stays visible: a scrape comes every 15 to 30 s and should not miss it."""
REPORT_WITHIN_S = 5.0
"""Where standard error takes no more, which may be why the loop hangs, the process ends without its last words."""
EXIT_STATUS = 1
LIFE_SIGN_S = 1.0


class Watchdog:
    """Ends the process when its event loop or its pipeline made no progress for so long.

    Whatever supervises it starts it again, from the checkpoint. It looks from a thread of its own, since a blocked
    event loop can't look at itself. To be entered inside the loop, in the loop's thread.
    """

    def __init__(self, health: Health, *, stall_s: float) -> None:
        self._health = health
        self._stall_s = stall_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._next_beat.cancel()

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        self._next_beat = self._loop.call_later(BEAT_EVERY_S, self._beat)

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._stall_s / 4)):
            loop_stalled_s = time.monotonic() - self._beat_at
            if loop_stalled_s > self._stall_s:
                frames = sys._current_frames()  # noqa: SLF001 - the documented way to see another thread
                self._end("event_loop_stalled", loop_stalled_s, _lines(frames.get(self._watched)))
            elif self._health.stalled_s() > self._stall_s:
                self._end("pipeline_stalled", self._health.stalled_s(), _task_lines(self._loop))

    def _end(self, event: str, stalled_s: float, stack: list[str]) -> None:
        def report() -> None:
            log.critical(event, seconds=round(stalled_s, 1), exit_status=EXIT_STATUS, where=stack)
            sys.stderr.flush()

        reporter = threading.Thread(target=report, name="watchdog-report", daemon=True)
        reporter.start()
        reporter.join(REPORT_WITHIN_S)
        os._exit(EXIT_STATUS)


async def measure_loop_lag(metrics: ProcessMetrics) -> None:
    """Keeps `event_loop_lag_seconds`, how much later than asked the loop woke a sleeper, and its tasks. Never ends."""
    loop = asyncio.get_running_loop()
    lags: deque[float] = deque([0.0], maxlen=round(LAG_WINDOW_S / BEAT_EVERY_S))
    while True:
        asked = loop.time() + BEAT_EVERY_S
        await asyncio.sleep(BEAT_EVERY_S)
        lags.append(max(0.0, loop.time() - asked))
        metrics.event_loop_lag_seconds.set(max(lags))
        metrics.event_loop_tasks.set(len(asyncio.all_tasks(loop)))


async def show_life(health: Health) -> None:
    """For a process that is as alive while it waits as while it works. Never ends.

    All that it waits for must have a timeout: the loop's coming round is then the progress that there is to tell.
    """
    while True:
        health.progress()
        await asyncio.sleep(LIFE_SIGN_S)


def _lines(frame: FrameType | None) -> list[str]:
    """Where a thread stands: files, lines and functions, no values."""
    return [f"{at.filename}:{at.lineno} {at.name}" for at in traceback.extract_stack(frame)] if frame else []


def _task_lines(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Where each task waits."""
    return list(chain.from_iterable(map(_waiting, asyncio.all_tasks(loop))))


def _waiting(task: asyncio.Task[object]) -> Iterator[str]:
    yield f"task {task.get_name()}:"
    for frame in task.get_stack():
        yield f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
