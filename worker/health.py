"""What probes ask: does the loop make progress, and do the things it needs answer.

Liveness is the loop's own progress and nothing else: a database that is down must not restart the worker.
"""

from __future__ import annotations

import time
from typing import Any

PROGRESS_WITHIN_S = 30.0
NEEDED = ("assignment", "postgres", "kafka", "dead_letter_topic")
"""What readiness waits for. The dead letter topic counts as good until it was found missing."""


class Health:
    """The state of the worker's loop and of its dependencies."""

    def __init__(self) -> None:
        self._progress_at = time.monotonic()
        self._checks: dict[str, str | None] = dict.fromkeys(NEEDED, "not reached yet") | {"dead_letter_topic": None}
        self._details: dict[str, Any] = {}

    def progress(self) -> None:
        """The loop has come round once more."""
        self._progress_at = time.monotonic()

    def stalled_s(self) -> float:
        """How long ago that was."""
        return time.monotonic() - self._progress_at

    def check_passed(self, name: str) -> None:
        """This dependency answers."""
        self._checks[name] = None

    def check_failed(self, name: str, why: str) -> None:
        """This dependency does not. `why` holds no data and no secret."""
        self._checks[name] = why

    def tell(self, name: str, value: Any) -> None:
        """Something beside the checks that a person wants to see."""
        self._details[name] = value

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether the loop makes progress, and the body that says so."""
        stalled_s = self.stalled_s()
        alive = stalled_s < PROGRESS_WITHIN_S
        return alive, {"live": alive, "seconds_since_progress": round(stalled_s, 3)}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether everything needed answers, and for each what is wrong."""
        checks = {name: {"ok": why is None} | ({"why": why} if why else {}) for name, why in self._checks.items()}
        ready = all(why is None for why in self._checks.values())
        return ready, {"ready": ready, "checks": checks} | self._details
