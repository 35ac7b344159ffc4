from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from worker.projection_metrics import ProjectionMetrics

NOW = datetime(2026, 11, 23, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def lag_s(metrics: ProjectionMetrics) -> float:
    found = metrics.registry.get_sample_value("cohort_sync_projection_cursor_lag_seconds", {"projection": "sdk"})
    assert found is not None
    return found


def test_the_lag_of_a_cursor_counts_on_while_nothing_can_be_told() -> None:
    clock = Clock()
    metrics = ProjectionMetrics(["sdk"], clock=clock)
    metrics.leads("sdk", leads=True)
    metrics.told("sdk", NOW, NOW - timedelta(seconds=2), NOW)
    assert lag_s(metrics) == 2

    clock.now_s += 60

    assert lag_s(metrics) == 62


def test_a_lead_that_begins_anew_is_as_far_behind_as_before() -> None:
    clock = Clock()
    metrics = ProjectionMetrics(["sdk"], clock=clock)
    metrics.leads("sdk", leads=True)
    clock.now_s += 60

    metrics.leads("sdk", leads=True)

    assert lag_s(metrics) == 60


def test_a_process_that_does_not_lead_says_nothing_of_the_lag() -> None:
    metrics = ProjectionMetrics(["sdk"])
    assert math.isnan(lag_s(metrics))

    metrics.leads("sdk", leads=True)
    metrics.leads("sdk", leads=False)

    assert math.isnan(lag_s(metrics))


def test_who_no_longer_leads_says_nothing_of_what_it_told_last() -> None:
    metrics = ProjectionMetrics(["sdk"])
    told = "cohort_sync_projection_synchronized_on_timestamp_seconds"
    metrics.leads("sdk", leads=True)
    metrics.told("sdk", NOW, NOW, NOW)
    assert metrics.registry.get_sample_value(told, {"projection": "sdk"}) == NOW.timestamp()

    metrics.leads("sdk", leads=True)
    assert metrics.registry.get_sample_value(told, {"projection": "sdk"}) == NOW.timestamp()
    metrics.leads("sdk", leads=False)

    assert metrics.registry.get_sample_value(told, {"projection": "sdk"}) is None


def test_everything_is_there_from_the_start() -> None:
    exposition = ProjectionMetrics(["sdk"]).exposition().decode()

    projection = ("projection_applied_total", "projection_refused_total", "projection_cursor_lag_seconds")
    for name in (*projection, "build_info", "event_loop_lag_seconds"):
        assert f"cohort_sync_{name}" in exposition


def test_what_a_target_can_never_hold_is_counted() -> None:
    metrics = ProjectionMetrics(["sdk"])

    metrics.refused("sdk", 2)

    assert metrics.registry.get_sample_value("cohort_sync_projection_refused_total", {"projection": "sdk"}) == 2
