"""What is recorded while the worker runs. `worker.metric_definitions` says what each metric means."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from consumers.errors import Ignored
from consumers.feeds import Feed
from consumers.record import TopicPartition
from stores.errors import BatchRejectedError, StoreUnavailableError
from stores.model import Clearing, DeltaGroup
from worker.metric_definitions import PAUSE_REASONS, MetricDefinitions

if TYPE_CHECKING:
    from consumers.dead_letter import DeadLetter

UNKNOWN = "unknown"


class StoredBatch(Protocol):
    """What the metrics need to know of a batch that is durable and committed."""

    @property
    def arrivals(self) -> Mapping[str, Mapping[int, int]]:
        """By topic, how many records it has of each record time (ms)."""

    @property
    def timestamps_ms(self) -> Mapping[TopicPartition, int]:
        """The record time of the last record of each partition."""

    @property
    def next_offsets(self) -> Mapping[TopicPartition, int]:
        """Behind the last record of each partition."""

    @property
    def ignored(self) -> Mapping[Ignored, int]:
        """How many records were skipped for each reason."""

    @property
    def conflicts(self) -> int:
        """How many members were listed both as in and as out."""

    @property
    def future_event_times(self) -> int:
        """How many records had a source clock that was too far ahead."""


class Metrics(MetricDefinitions):
    """Records what the steps of the pipeline report. Belongs to the event loop's thread.

    `integrations` are the names that a record's header may say, beside the formats of the feeds.
    """

    def __init__(
        self, feeds: Sequence[Feed] = (), *, integrations: Iterable[str] = (), clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(feeds)
        self._clock = clock
        self._feeds = feeds
        self._formats = {name.casefold(): name for name in (*integrations, *(feed.format for feed in feeds))}
        self._shown_partitions: set[TopicPartition] = set()

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

    def batch_stored(self, batch: StoredBatch) -> None:
        """Everything of this batch is durable."""
        now = self._clock()
        for topic, arrivals in batch.arrivals.items():
            feed = self._find_feed(topic)
            name = feed.name if feed else UNKNOWN
            self.records_total.labels(name).inc(sum(arrivals.values()))
            self.feed_last_record_timestamp_seconds.labels(name).set(now)
            for timestamp_ms, count in arrivals.items():
                self.event_to_store_seconds.observe((name,), max(0.0, now - timestamp_ms / 1000), count)
        for tp, timestamp_ms in batch.timestamps_ms.items():
            self.consumer_position_timestamp_seconds.labels(tp.topic, tp.partition).set(timestamp_ms / 1000)
            self._shown_partitions.add(tp)
        for tp, next_offset in batch.next_offsets.items():
            self.consumer_stored_offset.labels(tp.topic, tp.partition).set(next_offset)
        for reason, count in batch.ignored.items():
            self.ignored_records_total.labels(reason).inc(count)
        self.future_event_times_total.inc(batch.future_event_times)
        self.conflicting_members_total.inc(batch.conflicts)

    def deltas_stored(self, deltas: Sequence[tuple[int, DeltaGroup]], stale: Mapping[int, int]) -> None:
        """These deltas are durable; by segment id, so many of them changed nothing."""
        stored: Tally[tuple[str, bool]] = Tally()  # labels cost more than a record does, so they are looked up once
        for _, group in deltas:
            stored[group.cohort.integration, group.included] += len(group.context_keys)
        for (integration, included), count in stored.items():
            self.deltas_total.labels(integration, "add" if included else "remove").inc(count)
        integrations = {segment_id: group.cohort.integration for segment_id, group in deltas} if stale else {}
        for segment_id, count in stale.items():
            self.stale_deltas_total.labels(integrations.get(segment_id, UNKNOWN)).inc(count)

    def clearings_stored(self, clearings: Iterable[Clearing]) -> None:
        """These drains and pages of replace sessions are durable."""
        for clearing in clearings:
            operation = "drain" if clearing.page is None else "replace"
            self.operations_total.labels(clearing.cohort.integration, operation).inc()

    def dead_letters_sent(self, letters: Iterable[DeadLetter]) -> None:
        """These are safe in the dead letter topic."""
        for letter in letters:
            topic = letter.record.topic
            self.dead_letters_total.labels(topic, letter.reason).inc()
            feed = self._find_feed(topic)
            self.feed_dead_letters_total.labels(feed.name if feed else UNKNOWN).inc()
            integration = self._integration(feed, letter.record.header("integration"))
            self.rejects_total.labels(integration, letter.reason).inc(len(letter.members) if letter.members else 1)

    def set_lags(self, lags: Mapping[TopicPartition, int]) -> None:
        """The lag of every partition that is ours; what is no longer ours is no longer shown."""
        for tp in self._shown_partitions - lags.keys():
            labels = {"topic": tp.topic, "partition": str(tp.partition)}
            self.consumer_lag_records.remove_by_labels(labels)
            self.consumer_position_timestamp_seconds.remove_by_labels(labels)
            self.consumer_stored_offset.remove_by_labels(labels)
        self._shown_partitions = set(lags)
        for tp, lag in lags.items():
            self.consumer_lag_records.labels(tp.topic, tp.partition).set(lag)

    def set_paused(self, reasons: Tally[str]) -> None:
        """How many partitions are paused for each reason; for those not named, none."""
        for reason in {*PAUSE_REASONS, *reasons}:
            self.paused_partitions.labels(reason).set(reasons[reason])

    def _find_feed(self, topic: str) -> Feed | None:
        return next((feed for feed in self._feeds if feed.carries(topic)), None)

    def _integration(self, feed: Feed | None, header: str | None) -> str:
        """Whose record it was, from a closed list whatever its header says."""
        name = header or (feed.format if feed else UNKNOWN)
        return self._formats.get(name.casefold(), UNKNOWN)


def _outcome(exc: BaseException) -> str:
    if isinstance(exc, StoreUnavailableError):
        return "unavailable"
    if isinstance(exc, BatchRejectedError):
        return "rejected"
    return "failed" if isinstance(exc, Exception) else "cancelled"
