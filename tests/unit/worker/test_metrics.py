"""The metrics: that they count what they say, and are shown as Prometheus expects."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from consumers.dead_letter import DeadLetter
from consumers.errors import Ignored, Reason
from consumers.feeds import Feed
from consumers.normalize import Normalized
from consumers.record import Record, TopicPartition
from stores.errors import BatchRejectedError, StoreUnavailableError
from tests.builders import a_group, a_record
from worker.batch import Batch
from worker.metric_definitions import EVENT_TO_STORE_BUCKETS_S
from worker.metrics import Metrics
from worker.weighted_histogram import WeightedHistogram

NOW_S = 1_700_000_000.0
FEED = Feed(name="webhook", format="amplitude-webhook", topics=("cohorts",))
ANY_FORMAT = Feed(name="gateway", format="header", topic_pattern="gateway\\..*")

# What interface.md 7 promises of the worker.
PROMISED = (
    "records_total",
    "deltas_total",
    "stale_deltas_total",
    "rejects_total",
    "dead_letters_total",
    "consumer_lag_records",
    "consumer_position_timestamp_seconds",
    "event_to_store_seconds",
    "batch_deltas",
    "batch_flushes_total",
    "store_write_seconds",
    "stage_seconds_total",
    "commits_total",
    "rebalances_total",
    "assigned_partitions",
    "paused_partitions",
    "event_loop_lag_seconds",
    "future_event_times_total",
    "segments",
    "store_horizon_age_seconds",
    "build_info",
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics([FEED, ANY_FORMAT], clock=lambda: NOW_S)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"cohort_sync_{name}", labels)


def a_batch(*records: Record, ignored: Ignored | None = None, future_event_time: bool = False) -> Batch:
    batch = Batch()
    meaning = Normalized([], [], members=1, ignored=ignored, future_event_time=future_event_time)
    for record in records:
        batch.add(record, meaning, 0.0)
    return batch


def a_letter(record: Record, reason: Reason, members: tuple[int, ...] | None = None) -> DeadLetter:
    return DeadLetter(record, reason, "/users/0 is missing", members)


@pytest.mark.parametrize("name", PROMISED)
def test_every_promised_metric_is_there_from_the_start_and_has_a_help(metrics: Metrics, name: str) -> None:
    text = metrics.exposition().decode()
    helps = [line for line in text.splitlines() if line.startswith(f"# HELP cohort_sync_{name} ")]
    assert len(helps) == 1
    assert len(helps[0].split()) > 5


def test_what_is_not_ours_alone_is_shown_too(metrics: Metrics) -> None:
    text = metrics.exposition().decode()
    assert "process_resident_memory_bytes" in text
    assert "python_gc_collections_total" in text


def test_series_that_the_configuration_names_start_at_zero(metrics: Metrics) -> None:
    assert value(metrics, "records_total", feed="webhook") == 0
    assert value(metrics, "event_to_store_seconds_count", feed="webhook") == 0
    assert value(metrics, "dead_letters_total", topic="cohorts", reason="json_invalid") == 0
    assert value(metrics, "feed_dead_letters_total", feed="gateway") == 0
    assert value(metrics, "rejects_total", integration="amplitude-webhook", reason="json_invalid") == 0
    assert value(metrics, "paused_partitions", reason="dead_letters") == 0
    assert value(metrics, "stage_seconds_total", stage="write") == 0


def test_a_feed_that_never_brought_a_record_has_no_time_of_its_last_one(metrics: Metrics) -> None:
    assert value(metrics, "feed_last_record_timestamp_seconds", feed="webhook") is None


def test_two_sets_of_metrics_share_nothing(metrics: Metrics) -> None:
    metrics.rebalances_total.inc()
    assert value(Metrics([FEED]), "rebalances_total") == 0


def test_a_committed_batch_counts_records_freshness_and_positions(metrics: Metrics) -> None:
    at_ms = int(NOW_S * 1000)
    batch = a_batch(
        a_record(offset=0, timestamp_ms=at_ms - 200),
        a_record(offset=1, timestamp_ms=at_ms - 200),
        a_record(offset=2, timestamp_ms=at_ms - 4_000),
        ignored=Ignored.COMPUTED_TRAIT,
        future_event_time=True,
    )
    metrics.batch_stored(batch)
    assert value(metrics, "records_total", feed="webhook") == 3
    assert value(metrics, "event_to_store_seconds_bucket", feed="webhook", le="0.25") == 2
    assert value(metrics, "event_to_store_seconds_bucket", feed="webhook", le="5.0") == 3
    assert value(metrics, "event_to_store_seconds_sum", feed="webhook") == pytest.approx(4.4)
    assert value(metrics, "consumer_stored_offset", topic="cohorts", partition="0") == 3
    assert value(metrics, "feed_last_record_timestamp_seconds", feed="webhook") == NOW_S
    position = value(metrics, "consumer_position_timestamp_seconds", topic="cohorts", partition="0")
    assert position == pytest.approx(NOW_S - 4)
    assert value(metrics, "ignored_records_total", reason="computed_trait") == 3
    assert value(metrics, "future_event_times_total") == 3


def test_a_record_from_the_future_counts_as_fresh_and_never_as_less_than_nothing(metrics: Metrics) -> None:
    metrics.batch_stored(a_batch(a_record(timestamp_ms=int(NOW_S * 1000) + 60_000)))
    assert value(metrics, "event_to_store_seconds_sum", feed="webhook") == 0


def test_stored_deltas_are_counted_by_change_and_stale_ones_by_integration(metrics: Metrics) -> None:
    deltas = [(1, a_group("u1", "u2")), (1, a_group("u3", included=False)), (2, a_group("u4", segment="amplitude-b"))]
    metrics.deltas_stored(deltas, {1: 2})
    assert value(metrics, "deltas_total", integration="amplitude", change="add") == 3
    assert value(metrics, "deltas_total", integration="amplitude", change="remove") == 1
    assert value(metrics, "stale_deltas_total", integration="amplitude") == 2


def test_a_dead_letter_counts_once_and_its_rejected_members_each(metrics: Metrics) -> None:
    metrics.dead_letters_sent(
        [
            a_letter(a_record(), Reason.CONTEXT_KEY_MISSING, (3, 4, 9)),
            a_letter(a_record(offset=1), Reason.JSON_INVALID),
        ]
    )
    assert value(metrics, "dead_letters_total", topic="cohorts", reason="context_key_missing") == 1
    assert value(metrics, "feed_dead_letters_total", feed="webhook") == 2
    assert value(metrics, "rejects_total", integration="amplitude-webhook", reason="context_key_missing") == 3
    assert value(metrics, "rejects_total", integration="amplitude-webhook", reason="json_invalid") == 1


def test_what_a_header_says_becomes_a_label_only_if_it_is_known() -> None:
    metrics = Metrics([FEED, ANY_FORMAT], integrations=["hightouch"])
    for number, name in enumerate((b"Hightouch", b"x" * 100, b"y\xff")):
        record = a_record(topic="gateway.in", offset=number, headers=(("integration", name),))
        metrics.dead_letters_sent([a_letter(record, Reason.JSON_INVALID)])
    assert value(metrics, "rejects_total", integration="hightouch", reason="json_invalid") == 1
    assert value(metrics, "rejects_total", integration="unknown", reason="json_invalid") == 2


def test_partitions_that_went_to_others_are_no_longer_shown(metrics: Metrics) -> None:
    metrics.batch_stored(a_batch(a_record(partition=0), a_record(partition=1)))
    metrics.set_lags({TopicPartition("cohorts", 0): 5, TopicPartition("cohorts", 1): 7})
    metrics.set_lags({TopicPartition("cohorts", 1): 6})
    assert value(metrics, "consumer_lag_records", topic="cohorts", partition="0") is None
    assert value(metrics, "consumer_position_timestamp_seconds", topic="cohorts", partition="0") is None
    assert value(metrics, "consumer_stored_offset", topic="cohorts", partition="0") is None
    assert value(metrics, "consumer_lag_records", topic="cohorts", partition="1") == 6
    assert value(metrics, "consumer_position_timestamp_seconds", topic="cohorts", partition="1") is not None


def test_a_pause_that_is_over_goes_back_to_zero(metrics: Metrics) -> None:
    metrics.set_paused(Counter({"dead_letters": 2}))
    assert value(metrics, "paused_partitions", reason="dead_letters") == 2
    metrics.set_paused(Counter())
    assert value(metrics, "paused_partitions", reason="dead_letters") == 0


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (StoreUnavailableError("PostgreSQL", "down"), "unavailable"),
        (BatchRejectedError("22021"), "rejected"),
        (ValueError(), "failed"),
        (KeyboardInterrupt(), "cancelled"),
    ],
)
def test_a_write_that_fails_is_measured_by_how(metrics: Metrics, error: BaseException, outcome: str) -> None:
    with pytest.raises(type(error)), metrics.store_write():
        raise error
    assert value(metrics, "store_write_seconds_count", outcome=outcome) == 1


def test_a_write_that_succeeds_is_measured_as_stored(metrics: Metrics) -> None:
    with metrics.store_write():
        pass
    assert value(metrics, "store_write_seconds_count", outcome="stored") == 1


def test_time_in_a_stage_is_added_up_also_when_it_fails(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="no"), metrics.stage("write"):
        raise ValueError("no")
    assert (value(metrics, "stage_seconds_total", stage="write") or 0) > 0


def test_a_weighted_histogram_shows_what_the_same_observations_one_by_one_would() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    weighted = WeightedHistogram("h_seconds", "Help.", ("feed",), buckets=EVENT_TO_STORE_BUCKETS_S, registry=ours)
    single = Histogram("h_seconds", "Help.", ("feed",), buckets=EVENT_TO_STORE_BUCKETS_S, registry=theirs)
    weighted.start(("idle",))
    single.labels("idle")
    drawn = random.Random(7)
    # Multiples of 1/64 add up exactly, so that sums agree whatever the order.
    observed = [drawn.randrange(64 * 400) / 64 for _ in range(200)] + [0.0, 0.25, 0.5, 300.0]
    for seconds in observed:
        count, feed = drawn.randrange(1, 9), drawn.choice(("a", 'b"\n'))
        weighted.observe((feed,), seconds, count)
        for _ in range(count):
            single.labels(feed).observe(seconds)
    assert sorted(generate_latest(ours).splitlines()) == sorted(
        line for line in generate_latest(theirs).splitlines() if b"_created" not in line
    )
