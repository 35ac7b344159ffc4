"""The metrics of the projectors. The names are fixed in interface.md 7."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from worker.process_metrics import ProcessMetrics


class ProjectionMetrics(ProcessMetrics):
    """What the projectors of this process report, from 0 on for each of them."""

    def __init__(self, projections: Iterable[str]) -> None:
        super().__init__()
        self.projection_applied_total = self._counter(
            "projection_applied", "Memberships that were put into the target, as they were.", "projection"
        )
        self.projection_cursor_lag_seconds = self._gauge(
            "projection_cursor_lag_seconds",
            "For so long the end of the change feed was not reached. A rise: the target is slow, or away.",
            "projection",
        )
        self.projection_synchronized_on_timestamp_seconds = self._gauge(
            "projection_synchronized_on_timestamp_seconds",
            "Up to then the SDKs were told that all is there. Older than two minutes: they report STALE.",
            "projection",
        )
        for name in projections:
            self.projection_applied_total.labels(name)

    def applied(self, projection: str, changes: int) -> None:
        """So many changes were acknowledged by the target."""
        self.projection_applied_total.labels(projection).inc(changes)

    def told(
        self, projection: str, now: datetime, caught_up_at: datetime | None, synchronized_on: datetime | None
    ) -> None:
        """What the target and `status` were told."""
        if caught_up_at is not None:
            self.projection_cursor_lag_seconds.labels(projection).set((now - caught_up_at).total_seconds())
        if synchronized_on is not None:
            self.projection_synchronized_on_timestamp_seconds.labels(projection).set(synchronized_on.timestamp())
