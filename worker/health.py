"""What probes ask: does the loop make progress, and do the things it needs answer.

Liveness is the loop's own progress and nothing else: a database that is down must not restart the worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

PROGRESS_WITHIN_S = 30.0
NEEDED = ("assignment", "postgres", "kafka")
"""What readiness waits for. Other checks count from their first result on."""
STOPPING = "stopping"
"""The check of a process that was asked to end: it is not ready, and nothing that it depends on is to blame."""
_NOT_REACHED = "not reached yet"


class Health:
    """The state of the worker's loop and of its dependencies. `needed` names what must have answered once."""

    def __init__(self, needed: Iterable[str] = NEEDED, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._progress_at: float | None = None
        self._checks: dict[str, str | None] = dict.fromkeys(needed, _NOT_REACHED)
        self._details: dict[str, Any] = {}

    def progress(self) -> None:
        """The loop has come round once more."""
        self._progress_at = self._clock()

    def stalled_s(self) -> float:
        """How long ago that was. 0 before the first time: a start waits for the store as long as it takes."""
        return 0.0 if self._progress_at is None else self._clock() - self._progress_at

    def check_passed(self, name: str) -> None:
        """This dependency answers."""
        self._checks[name] = None

    def check_failed(self, name: str, why: str) -> None:
        """This dependency does not. `why` holds no data and no secret."""
        self._checks[name] = why

    def dependencies(self) -> dict[str, bool]:
        """What was asked so far, by name, and whether it answers."""
        # One that was not reached yet waits for another one, and that other one is to blame.
        asked = {name: why for name, why in self._checks.items() if why != _NOT_REACHED and name != STOPPING}
        return {name: why is None for name, why in asked.items()}

    def tell(self, name: str, value: Any) -> None:
        """Something beside the checks that a person wants to see."""
        self._details[name] = value

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether the loop makes progress, and the body that says so."""
        stalled_s = round(self.stalled_s(), 3)
        if stalled_s < PROGRESS_WITHIN_S:
            return True, {"live": True, "seconds_since_progress": stalled_s}
        why = f"no progress for {stalled_s:.0f} s, expected within {PROGRESS_WITHIN_S:.0f} s"
        return False, {"live": False, "seconds_since_progress": stalled_s, "why": why}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether everything needed answers, and for each what is wrong."""
        checks = {name: {"ok": why is None} | ({"why": why} if why else {}) for name, why in self._checks.items()}
        ready = all(why is None for why in self._checks.values())
        return ready, {"ready": ready, "checks": checks} | self._details
