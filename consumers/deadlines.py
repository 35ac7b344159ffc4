"""Waits that may not last for ever, by the thousand a second.

`asyncio.timeout` sets a timer for each wait, and two of them were a fifteenth of what a call costs the gateway. Here
all waits of one length share a timer, so that a wait may last a little longer than it was to.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

LONGER_AT_MOST_S = 0.25


class Deadlines:
    """Waits of one length: `with deadlines.wait(): await ...` raises TimeoutError after it, as asyncio's own does."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: dict[Wait, float] = {}
        """When each began, the first one first."""
        self._is_watched = False

    def wait(self) -> Wait:
        """One wait, once it is entered."""
        return Wait(self)

    def begin(self, wait: Wait) -> None:
        """It lasts from now on."""
        self._waiting[wait] = time.monotonic()
        if not self._is_watched:
            self._watch()

    def end(self, wait: Wait) -> None:
        """It is over."""
        self._waiting.pop(wait, None)

    def _watch(self) -> None:
        self._is_watched = True
        asyncio.get_running_loop().call_later(min(LONGER_AT_MOST_S, self.seconds), self._end_late_ones)

    def _end_late_ones(self) -> None:
        began_before = time.monotonic() - self.seconds
        while self._waiting:
            wait, began_at = next(iter(self._waiting.items()))
            if began_at > began_before:
                return self._watch()
            del self._waiting[wait]
            wait.expire()
        self._is_watched = False
        return None


class Wait:
    """One wait of the task that enters it."""

    __slots__ = ("_all", "_cancellations", "_is_late", "_task")

    def __init__(self, deadlines: Deadlines) -> None:
        self._all = deadlines
        self._is_late = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can wait")
        self._task, self._cancellations = task, task.cancelling()
        self._all.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, _: TracebackType | None
    ) -> None:
        self._all.end(self)
        # Whoever else cancelled the task meanwhile still has it cancelled.
        if self._is_late and self._task.uncancel() <= self._cancellations and kind is asyncio.CancelledError:
            raise TimeoutError from problem

    def expire(self) -> None:
        """It has lasted too long."""
        self._is_late = True
        self._task.cancel()
