"""What every process of ours measures of itself, and the registry that its other metrics are in."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)


class ProcessMetrics:
    """A registry with the metrics of the process. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # they double the series, and nobody asks for them
        self.registry = CollectorRegistry()
        self._define_process()

    def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)

    def set_dependencies(self, answers: Mapping[str, bool]) -> None:
        """Which of the things that this process needs answer, by the names that `/readyz` gives them."""
        for name, does_answer in answers.items():
            self.dependency_up.labels(name).set(does_answer)

    def _define_process(self) -> None:
        self.event_loop_lag_seconds = self._gauge(
            "event_loop_lag_seconds",
            "Longest time in the last half minute that the event loop was late. Above 1: heartbeats are at risk.",
        )
        self.event_loop_tasks = self._gauge(
            "event_loop_tasks", "Tasks in the event loop. Flat, whatever happens: growth is a leak."
        )
        self.dependency_up = self._gauge(
            "dependency_up",
            "Whether this answered when it was last asked, by the names of `/readyz`. 0 for minutes: look after it.",
            "dependency",
        )
        build_info = self._gauge("build_info", "Always 1; the version that runs is in the labels.", "version", "python")
        build_info.labels(own_version(), platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"cohort_sync_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"cohort_sync_{name}", documentation, labels, registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"cohort_sync_{name}", documentation, labels, buckets=buckets, registry=self.registry)


def own_version() -> str:
    """The installed version of cohort-sync."""
    try:
        return version("cohort-sync")
    except PackageNotFoundError:
        return "unknown"
