"""Which environments are left to other cells, said once each: one that all cells leave is in no cell's dead letters."""

from __future__ import annotations

import structlog

log = structlog.get_logger(__name__)

MOST_NAMES = 100
LONGEST_NAME = 100
"""The names come from records, so both are bounded."""


class SkippedEnvironments:
    """Logs each name the first time that this process meets it."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def note(self, name: str) -> None:
        """A record for this environment was skipped."""
        if name in self._told or len(self._told) == MOST_NAMES:
            return
        self._told.add(name)
        log.info("environment_skipped", environment=name[:LONGEST_NAME], more_are_told=len(self._told) < MOST_NAMES)
