"""The metrics of the projectors. The names are fixed in interface.md 7."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

from worker.process_metrics import ProcessMetrics


class ProjectionMetrics(ProcessMetrics):
    """What the projectors of this process report, from 0 on for each of them."""

    def __init__(self, projections: Iterable[str], *, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._caught_up_s: dict[str, float | None] = {}
        self.projection_applied_total = self._counter(
            "projection_applied", "Memberships that were put into the target, as they were.", "projection"
        )
        self.projection_refused_total = self._counter(
            "projection_refused",
            "Memberships that the target can never hold: in DynamoDB, of a context that is in thousands of segments.",
            "projection",
        )
        self.projection_cursor_lag_seconds = self._gauge(
            "projection_cursor_lag_seconds",
            "How long ago the end of the change feed was reached; NaN where others lead. A rise: the target "
            "is slow, or away.",
            "projection",
        )
        self.projection_synchronized_on_timestamp_seconds = self._gauge(
            "projection_synchronized_on_timestamp_seconds",
            "Up to then the SDKs were told that all is there; only where it is led. 120 s old: they report STALE.",
            "projection",
        )
        for name in projections:
            self.projection_applied_total.labels(name)
            self.projection_refused_total.labels(name)
            self.projection_cursor_lag_seconds.labels(name).set_function(partial(self._cursor_lag_s, name))

    def leads(self, projection: str, *, leads: bool) -> None:
        """Whether this process leads the projection from now on."""
        if not leads:
            # What it told last would only grow older here, beside what the new leader tells.
            self.projection_synchronized_on_timestamp_seconds.remove_by_labels({"projection": projection})
        # One that leads anew, since the target failed, is as far behind as before.
        known = self._caught_up_s.get(projection)
        self._caught_up_s[projection] = (self._clock() if known is None else known) if leads else None

    def applied(self, projection: str, changes: int) -> None:
        """So many changes were acknowledged by the target."""
        self.projection_applied_total.labels(projection).inc(changes)

    def refused(self, projection: str, memberships: int) -> None:
        """So many the target can never hold."""
        self.projection_refused_total.labels(projection).inc(memberships)

    def told(
        self, projection: str, now: datetime, caught_up_at: datetime | None, synchronized_on: datetime | None
    ) -> None:
        """What the target and `status` were told."""
        if caught_up_at is not None:
            self._caught_up_s[projection] = self._clock() - (now - caught_up_at).total_seconds()
        if synchronized_on is not None:
            self.projection_synchronized_on_timestamp_seconds.labels(projection).set(synchronized_on.timestamp())

    def _cursor_lag_s(self, projection: str) -> float:
        """Counted on while nothing can be told, which is when it matters."""
        caught_up_s = self._caught_up_s.get(projection)
        return float("nan") if caught_up_s is None else self._clock() - caught_up_s
