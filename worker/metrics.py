"""Every metric of the worker, and what a rise of it means. The names are fixed in interface.md 7.

Labels come from the configuration or from closed lists, never from a payload. Series whose labels are known beforehand
start at 0, so that an alert sees their first increase.
"""

from __future__ import annotations

import platform
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from consumers.errors import Ignored, Reason
from consumers.feeds import Feed
from consumers.record import TopicPartition
from stores.errors import BatchRejectedError, StoreUnavailableError
from stores.model import DeltaGroup
from worker.weighted_histogram import WeightedHistogram

if TYPE_CHECKING:
    from consumers.dead_letter import DeadLetter

EVENT_TO_STORE_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WRITE_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000)

STAGES = ("poll", "decode", "resolve", "write", "dead_letter", "commit")
TRIGGERS = ("count", "bytes", "age", "drain")
COMMIT_OUTCOMES = ("committed", "rebalanced", "unavailable")
WRITE_OUTCOMES = ("stored", "unavailable", "rejected", "failed", "cancelled")
PAUSE_REASONS = ("back_pressure", "dead_letters")
CHANGES = ("add", "remove")
UNKNOWN = "unknown"


class CommittedBatch(Protocol):
    """What the metrics need to know of a batch that is durable and committed."""

    @property
    def arrivals(self) -> Mapping[tuple[str, int], int]:
        """How many records each feed has of each record time (ms)."""

    @property
    def timestamps_ms(self) -> Mapping[TopicPartition, int]:
        """The record time of the last record of each partition."""

    @property
    def ignored(self) -> Mapping[Ignored, int]:
        """How many records were skipped for each reason."""

    @property
    def future_event_times(self) -> int:
        """How many records had a source clock that was too far ahead."""


class Metrics:
    """One registry with all metrics in it. Belongs to the event loop's thread."""

    def __init__(
        self, feeds: Sequence[Feed] = (), *, integrations: Iterable[str] = (), clock: Callable[[], float] = time.time
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # they double the series, and nobody asks for them
        self.registry = CollectorRegistry()
        self._clock = clock
        self._feeds = feeds
        self._formats = {name.casefold(): name for name in (*integrations, *(feed.format for feed in feeds))}
        self._shown_partitions: set[TopicPartition] = set()
        self._define_flow()
        self._define_steps()
        self._define_state()
        self._define_process()
        self._start_at_zero()

    def _define_flow(self) -> None:
        self.records_total = self._counter(
            "records", "Records whose offsets were committed. No rise while lag is above 0: the worker is stuck.", "feed"
        )
        self.deltas_total = self._counter(
            "deltas", "Deltas that were stored, counted after the commit; stale ones too.", "integration", "change"
        )
        self.stale_deltas_total = self._counter(
            "stale_deltas",
            "Stored deltas that changed nothing, being older or known. A rise: a replay, or a source that repeats itself.",
            "integration",
        )
        self.rejects_total = self._counter(
            "rejects",
            "Members, or whole records, that were rejected. A rise: a source changed what it sends.",
            "integration",
            "reason",
        )
        self.dead_letters_total = self._counter(
            "dead_letters", "Records written to the dead letter topic. A rise: look at them by reason.", "topic", "reason"
        )
        self.ignored_records_total = self._counter(
            "ignored_records", "Valid records that mean nothing for any segment. A rise is no error.", "reason"
        )
        self.future_event_times_total = self._counter(
            "future_event_times", "Records whose source clock was too far ahead. A rise: a source's clock is wrong."
        )
        self.event_to_store_seconds = WeightedHistogram(
            "cohort_sync_event_to_store_seconds",
            "From the record's time at the broker to the commit in PostgreSQL. A rise: freshness is being lost.",
            ("feed",),
            buckets=EVENT_TO_STORE_BUCKETS_S,
            registry=self.registry,
        )

    def _define_steps(self) -> None:
        self.batch_deltas = self._histogram(
            "batch_deltas", "Deltas of a batch. At the limit all the time: the worker is at full load.", BATCH_BUCKETS
        )
        self.batch_flushes_total = self._counter(
            "batch_flushes", "Batches by what made them due. Only `age`: there is little to do.", "trigger"
        )
        self.store_write_seconds = self._histogram(
            "store_write_seconds", "Time of one write to the store. A rise: PostgreSQL is slow.", WRITE_BUCKETS_S, "outcome"
        )
        self.stage_seconds_total = self._counter(
            "stage_seconds",
            "Seconds spent in each stage; writing and reading go on side by side. The one near 1 s/s is the limit.",
            "stage",
        )
        self.commits_total = self._counter(
            "commits", "Commits of offsets to Kafka. A rise of others than `committed`: rebalances, or no broker.", "outcome"
        )

    def _define_state(self) -> None:
        self.rebalances_total = self._counter(
            "rebalances", "Times that partitions were given out anew. A steady rise: workers come and go, or are too slow."
        )
        self.assigned_partitions = self._gauge("assigned_partitions", "Partitions that are ours. 0: a worker too many.")
        self.paused_partitions = self._gauge(
            "paused_partitions",
            "Partitions that are not read. `dead_letters` above 0: a person has to look; `back_pressure`: the store is slow.",
            "reason",
        )
        self.consumer_lag_records = self._gauge(
            "consumer_lag_records", "Records not read yet. A steady rise: too little capacity.", "topic", "partition"
        )
        self.consumer_position_timestamp_seconds = self._gauge(
            "consumer_position_timestamp_seconds",
            "Time of the last record that is stored. Standing still while there is lag: that partition is stuck.",
            "topic",
            "partition",
        )
        self.segments = self._gauge("segments", "Segments in the store. A sudden rise: a source invents cohort ids.")
        self.store_horizon_age_seconds = self._gauge(
            "store_horizon_age_seconds",
            "Age of the oldest open write transaction on the server. A rise: it holds back projections and the sweep.",
        )

    def _define_process(self) -> None:
        self.event_loop_lag_seconds = self._gauge(
            "event_loop_lag_seconds",
            "Longest time in the last half minute that the event loop was late. Above 1: heartbeats are at risk.",
        )
        build_info = self._gauge("build_info", "Always 1; the version that runs is in the labels.", "version", "python")
        build_info.labels(own_version(), platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _start_at_zero(self) -> None:
        for feed in self._feeds:
            self.records_total.labels(feed.name)
            self.event_to_store_seconds.start((feed.name,))
            for reason in Reason:
                self.rejects_total.labels(feed.format, reason)
                for topic in feed.topics:
                    self.dead_letters_total.labels(topic, reason)
        closed_lists: list[tuple[Counter | Gauge | Histogram, Iterable[str]]] = [
            (self.ignored_records_total, Ignored),
            (self.batch_flushes_total, TRIGGERS),
            (self.store_write_seconds, WRITE_OUTCOMES),
            (self.stage_seconds_total, STAGES),
            (self.commits_total, COMMIT_OUTCOMES),
            (self.paused_partitions, PAUSE_REASONS),
        ]
        for metric, values in closed_lists:
            for value in values:
                metric.labels(value)

    def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time inside to this stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds_total.labels(name).inc(time.perf_counter() - started)

    @contextmanager
    def store_write(self) -> Iterator[None]:
        """Measures one write to the store, by how it ended."""
        started, outcome = time.perf_counter(), "failed"
        try:
            yield
            outcome = "stored"
        except BaseException as exc:
            outcome = _outcome(exc)
            raise
        finally:
            self.store_write_seconds.labels(outcome).observe(time.perf_counter() - started)

    def batch_flushed(self, trigger: str, deltas: int) -> None:
        """A batch of so many deltas is on its way to the store."""
        self.batch_deltas.observe(deltas)
        self.batch_flushes_total.labels(trigger).inc()

    def batch_committed(self, batch: CommittedBatch) -> None:
        """Everything of this batch is durable, and Kafka was told so."""
        now = self._clock()
        for (feed, timestamp_ms), count in batch.arrivals.items():
            self.records_total.labels(feed).inc(count)
            self.event_to_store_seconds.observe((feed,), max(0.0, now - timestamp_ms / 1000), count)
        for tp, timestamp_ms in batch.timestamps_ms.items():
            self.consumer_position_timestamp_seconds.labels(tp.topic, tp.partition).set(timestamp_ms / 1000)
            self._shown_partitions.add(tp)
        for reason, count in batch.ignored.items():
            self.ignored_records_total.labels(reason).inc(count)
        self.future_event_times_total.inc(batch.future_event_times)

    def deltas_stored(self, deltas: Iterable[tuple[int, DeltaGroup]], stale: Mapping[int, int]) -> None:
        """These deltas are durable; by segment id, so many of them changed nothing."""
        integrations: dict[int, str] = {}
        stored: Tally[tuple[str, bool]] = Tally()  # labels cost more than a record does, so they are looked up once
        for segment_id, group in deltas:
            integrations[segment_id] = group.cohort.integration
            stored[group.cohort.integration, group.included] += len(group)
        for (integration, included), count in stored.items():
            self.deltas_total.labels(integration, "add" if included else "remove").inc(count)
        for segment_id, count in stale.items():
            self.stale_deltas_total.labels(integrations.get(segment_id, UNKNOWN)).inc(count)

    def dead_letters_sent(self, letters: Iterable[DeadLetter]) -> None:
        """These are safe in the dead letter topic."""
        for letter in letters:
            topic = letter.record.topic
            self.dead_letters_total.labels(topic, letter.reason).inc()
            integration = self._integration(topic, letter.record.header("integration"))
            self.rejects_total.labels(integration, letter.reason).inc(len(letter.members) if letter.members else 1)

    def set_lags(self, lags: Mapping[TopicPartition, int]) -> None:
        """The lag of every partition that is ours; what is no longer ours is no longer shown."""
        for tp in self._shown_partitions - lags.keys():
            labels = tp.topic, str(tp.partition)
            for gauge in (self.consumer_lag_records, self.consumer_position_timestamp_seconds):
                gauge.remove_by_labels({"topic": labels[0], "partition": labels[1]})
        self._shown_partitions = set(lags)
        for tp, lag in lags.items():
            self.consumer_lag_records.labels(tp.topic, tp.partition).set(lag)

    def set_paused(self, reasons: Tally[str]) -> None:
        """How many partitions are paused for each reason; for those not named, none."""
        for reason in {*PAUSE_REASONS, *reasons}:
            self.paused_partitions.labels(reason).set(reasons[reason])

    def _integration(self, topic: str, header: str | None) -> str:
        """Whose record it was, from a closed list whatever its header says."""
        name = header or next((feed.format for feed in self._feeds if feed.carries(topic)), UNKNOWN)
        return self._formats.get(name.casefold(), UNKNOWN)

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
        return UNKNOWN


def _outcome(exc: BaseException) -> str:
    if isinstance(exc, StoreUnavailableError):
        return "unavailable"
    if isinstance(exc, BatchRejectedError):
        return "rejected"
    return "failed" if isinstance(exc, Exception) else "cancelled"
