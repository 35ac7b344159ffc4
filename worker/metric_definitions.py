"""Every metric of the worker, and what a rise of it means. The names are fixed in interface.md 7.

Labels come from the configuration or from closed lists, never from a payload. Series whose labels are known beforehand
start at 0, so that an alert sees their first increase.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import Counter, Gauge, Histogram

from consumers.errors import Ignored, Reason
from consumers.feeds import Feed
from worker.process_metrics import ProcessMetrics
from worker.weighted_histogram import WeightedHistogram

EVENT_TO_STORE_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WRITE_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000)

STAGES = ("poll", "decode", "resolve", "write", "dead_letter", "commit")
TRIGGERS = ("count", "bytes", "age", "drain")
COMMIT_OUTCOMES = ("committed", "rebalanced", "unavailable")
WRITE_OUTCOMES = ("stored", "unavailable", "rejected", "failed", "cancelled")
BACK_PRESSURE, DEAD_LETTERS = PAUSE_REASONS = "back_pressure", "dead_letters"


class MetricDefinitions(ProcessMetrics):
    """One registry with all metrics in it."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        super().__init__()
        self._define_flow()
        self._define_steps()
        self._define_state()
        self._start_at_zero(feeds)

    def _define_flow(self) -> None:
        self.records_total = self._counter(
            "records",
            "Records that were made durable. No rise while lag is above 0: the worker is stuck.",
            "feed",
        )
        self.deltas_total = self._counter(
            "deltas", "Deltas that were stored, counted after the commit; stale ones too.", "integration", "change"
        )
        self.stale_deltas_total = self._counter(
            "stale_deltas",
            "Stored deltas that changed nothing, being older or known. A rise: a replay, or a source repeats itself.",
            "integration",
        )
        self.operations_total = self._counter(
            "operations",
            "Drains, and pages of replace sessions, that were stored. A drain empties a segment.",
            "integration",
            "operation",
        )
        self.rejects_total = self._counter(
            "rejects",
            "Members, or whole records, that were rejected. A rise: a source changed what it sends.",
            "integration",
            "reason",
        )
        self.dead_letters_total = self._counter(
            "dead_letters",
            "Records written to the dead letter topic. A rise: look at them by reason.",
            "topic",
            "reason",
        )
        self.feed_dead_letters_total = self._counter(
            "feed_dead_letters",
            "The same by feed, to be compared with `records_total`: a small feed is seen beside a large one.",
            "feed",
        )
        self.feed_last_record_timestamp_seconds = self._gauge(
            "feed_last_record_timestamp_seconds",
            "When a record of this feed was last made durable here. Older than its cadence: the source is silent.",
            "feed",
        )
        self.ignored_records_total = self._counter(
            "ignored_records", "Valid records that mean nothing for any segment. A rise is no error.", "reason"
        )
        self.conflicting_members_total = self._counter(
            "conflicting_members",
            "Members that one record listed as in and as out. A rise: a source contradicts itself.",
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
            "store_write_seconds",
            "Time of one write to the store. A rise: PostgreSQL is slow.",
            WRITE_BUCKETS_S,
            "outcome",
        )
        self.stage_seconds_total = self._counter(
            "stage_seconds",
            "Seconds spent in each stage; writing and reading go on side by side. The one near 1 s/s is the limit.",
            "stage",
        )
        self.commits_total = self._counter(
            "commits",
            "Commits of offsets to Kafka. A rise of others than `committed`: rebalances, or no broker.",
            "outcome",
        )

    def _define_state(self) -> None:
        self.rebalances_total = self._counter(
            "rebalances",
            "Times that partitions were given out anew. A steady rise: workers come and go, or are too slow.",
        )
        self.assigned_partitions = self._gauge("assigned_partitions", "Partitions that are ours. 0: a worker too many.")
        self.paused_partitions = self._gauge(
            "paused_partitions",
            "Partitions that are not read. `dead_letters`: a person has to look; `back_pressure`: the store is slow.",
            "reason",
        )
        self.consumer_lag_records = self._gauge(
            "consumer_lag_records", "Records not read yet. A steady rise: too little capacity.", "topic", "partition"
        )
        self.consumer_position_timestamp_seconds = self._gauge(
            "consumer_position_timestamp_seconds",
            "Time of the last record that is stored. It may stand still in a backfill: see `consumer_stored_offset`.",
            "topic",
            "partition",
        )
        self.consumer_stored_offset = self._gauge(
            "consumer_stored_offset",
            "The next offset behind the last record that is stored. Standing still while there is lag: that "
            "partition is stuck.",
            "topic",
            "partition",
        )
        self.segments = self._gauge("segments", "Segments in the store. A sudden rise: a source invents cohort ids.")
        self.store_horizon_age_seconds = self._gauge(
            "store_horizon_age_seconds",
            "Age of the oldest open write transaction on the server. A rise: it holds back projections and the sweep.",
        )
        self.open_replace_sessions = self._gauge(
            "open_replace_sessions", "Replace sessions that miss pages, so that they remove nobody yet."
        )
        self.oldest_open_replace_session_seconds = self._gauge(
            "oldest_open_replace_session_seconds",
            "For so long the oldest replace session has missed pages. Hours: look at `cohort-sync status`.",
        )

    def _start_at_zero(self, feeds: Sequence[Feed]) -> None:
        for feed in feeds:
            self.records_total.labels(feed.name)
            self.feed_dead_letters_total.labels(feed.name)
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
