"""A histogram that takes many observations of one value at the price of one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class WeightedHistogram(Collector):
    """Exposes what prometheus_client's own Histogram would after the same observations one by one.

    For values that come in thousands of equal ones, like the age of the records of a batch. Belongs to one thread.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = tuple(labelnames)
        self._bounds = (*buckets, float("inf"))
        self._series: dict[tuple[str, ...], _Series] = {}
        registry.register(self)

    def start(self, labels: tuple[str, ...]) -> None:
        """Shows this series from now on, with nothing in it."""
        self._series.setdefault(labels, _Series(len(self._bounds)))

    def observe(self, labels: tuple[str, ...], value: float, count: int = 1) -> None:
        """Takes in so many observations of this value."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series(len(self._bounds))
        series.counts[bisect_left(self._bounds, value)] += count
        series.sum += value * count

    def describe(self) -> Iterable[Metric]:
        """The family without its series."""
        yield self._family()

    def collect(self) -> Iterable[Metric]:
        """The family with all of its series, for the registry."""
        family = self._family()
        bounds = [*(str(float(bound)) for bound in self._bounds[:-1]), "+Inf"]
        for labels, series in self._series.items():
            family.add_metric(labels, list(zip(bounds, accumulate(series.counts), strict=True)), series.sum)
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)


class _Series:
    __slots__ = ("counts", "sum")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.sum = 0.0
