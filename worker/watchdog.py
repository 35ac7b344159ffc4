"""The watchdog: a process whose loop no longer comes round is worth less than a new one."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from typing import Self

import structlog

from worker.instruments import Instruments

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
LAG_EVERY_S = 0.5
EXIT_STATUS = 1


class Watchdog:
    """Ends the process when the pipeline made no progress for so long: Kubernetes starts it again from the checkpoint.

    It looks from a thread of its own, since a blocked event loop can't look at itself.
    """

    def __init__(self, instruments: Instruments, *, stall_s: float) -> None:
        self._health = instruments.health
        self._stall_s = stall_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._watched = threading.get_ident()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            stalled_s = self._health.stalled_s()
            if stalled_s > self._stall_s:
                log.critical("loop_stalled", seconds=round(stalled_s, 1), stack=self._stack())
                sys.stderr.flush()
                os._exit(EXIT_STATUS)

    def _stack(self) -> list[str]:
        """Where the watched thread stands: files and lines, no values."""
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - the documented way to see another thread
        return [f"{at.filename}:{at.lineno} {at.name}" for at in traceback.extract_stack(frame)] if frame else []


async def measure_loop_lag(instruments: Instruments) -> None:
    """Keeps `event_loop_lag_seconds`: how much later than asked the loop wakes a sleeper. Never ends."""
    loop = asyncio.get_running_loop()
    while True:
        asked = loop.time() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        instruments.metrics.event_loop_lag_seconds.set(max(0.0, loop.time() - asked))
