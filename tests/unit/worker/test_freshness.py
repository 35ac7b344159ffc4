"""What the SDKs are told of freshness: never later than the truth, and why it stands still."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.feeds import Feed
from consumers.record import TopicPartition
from stores.postgres.change_feed import FeedPosition
from worker.freshness import Freshness, freshness
from worker.ingestion import Ingestion

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FEEDS = [
    Feed(name="named", format="amplitude", topics=("cohorts",)),
    Feed(name="pattern", format="segment", topic_pattern="audiences\\..*"),
]
LIMIT_S = 30.0


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def told(
    *stored: tuple[str, int, datetime | None], read_at: datetime = NOW, unswept: int = 0, feeds: list[Feed] = FEEDS
) -> Freshness:
    up_to = {(topic, partition): until for topic, partition, until in stored}
    position = FeedPosition(10, 10, read_at, up_to, frozenset(range(unswept)))
    return freshness(position, feeds=feeds, now=NOW, limit_s=LIMIT_S)


TRUTH = {
    "all partitions are read to their ends: the oldest of them counts": (
        told(("cohorts", 0, ago(1)), ("cohorts", 1, ago(2)), ("audiences.a", 0, ago(1))),
        Freshness(ago(2), None),
    ),
    "one is behind by less than the limit": (
        told(("cohorts", 0, ago(1)), ("cohorts", 1, ago(29))),
        Freshness(ago(29), None),
    ),
    "one is behind by more, is paused, or nobody reads it": (
        told(("cohorts", 0, ago(1)), ("cohorts", 1, ago(31))),
        Freshness(ago(31), "cohorts:1 is not read to its end"),
    ),
    "one was never read to its end": (
        told(("cohorts", 0, ago(1)), ("cohorts", 1, None)),
        Freshness(None, "cohorts:1 is not read to its end"),
    ),
    "a topic that is named was never read": (
        told(("audiences.a", 0, ago(1))),
        Freshness(None, "no worker has read cohorts yet"),
    ),
    "no topic matches": (
        told(("others", 0, ago(1)), feeds=FEEDS[1:]),
        Freshness(None, "no topic that matches a feed was read yet"),
    ),
    "topics of other deployments do not count": (
        told(("cohorts", 0, ago(1)), ("others", 0, ago(9_999))),
        Freshness(ago(1), None),
    ),
    "the target is not whole": (
        freshness(None, feeds=FEEDS, now=NOW, limit_s=LIMIT_S),
        Freshness(None, "the target is being filled"),
    ),
    "a clearing has waited for its sweep for longer than the limit": (
        told(("cohorts", 0, ago(31)), unswept=2),
        Freshness(ago(31), "2 cleared segments are not swept yet"),
    ),
    "a clearing waits that was there when the projector began": (
        told(unswept=1),
        Freshness(None, "1 cleared segments are not swept yet"),
    ),
    "the projector is behind": (
        told(("cohorts", 0, ago(40)), read_at=ago(40)),
        Freshness(ago(40), "the projector is behind the change feed"),
    ),
    "a worker's clock is ahead": (told(("cohorts", 0, ago(-60))), Freshness(NOW, None)),
}


@pytest.mark.parametrize("case", TRUTH)
def test_the_rule_of_freshness(case: str) -> None:
    found, expected = TRUTH[case]

    assert found == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 10_000))), min_size=1, max_size=8))
def test_nothing_is_ever_said_that_one_partition_does_not_bear(stored: list[tuple[int, int | None]]) -> None:
    by_partition = {partition: None if age is None else ago(age) for partition, age in stored}

    said = told(*(("cohorts", partition, until) for partition, until in by_partition.items()))

    if said.synchronized_on is None:
        assert None in by_partition.values()
    else:
        assert all(until is not None and said.synchronized_on <= until for until in by_partition.values())


TP = TopicPartition("cohorts", 0)


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def test_a_partition_with_nothing_to_read_is_stored_up_to_when_it_was_asked() -> None:
    ingestion = Ingestion()

    assert ingestion.stored_up_to({TP: (1_000, 5)}, {TP: 5}) == {TP: moment(1_000)}
    assert ingestion.stored_up_to({TP: (2_000, 5)}, {TP: 5}) == {TP: moment(2_000)}


def test_what_arrived_later_counts_only_when_it_is_stored() -> None:
    ingestion = Ingestion()
    ingestion.stored_up_to({TP: (1_000, 5)}, {TP: 5})

    assert ingestion.stored_up_to({TP: (2_000, 9)}, {TP: 5}) == {TP: None}
    assert ingestion.stored_up_to({TP: (3_000, 20)}, {TP: 8}) == {TP: None}
    assert ingestion.stored_up_to({TP: (4_000, 30)}, {TP: 25}) == {TP: moment(3_000)}


def test_an_end_that_was_not_asked_again_proves_nothing_newer() -> None:
    ingestion = Ingestion()
    ingestion.stored_up_to({TP: (1_000, 5)}, {TP: 5})

    assert ingestion.stored_up_to({TP: (1_000, 5)}, {TP: 5}) == {TP: moment(1_000)}


def test_a_partition_that_others_read_is_theirs_to_tell_of() -> None:
    ingestion = Ingestion()
    ingestion.stored_up_to({TP: (1_000, 9)}, {TP: 5})

    assert ingestion.stored_up_to({TP: None}, {TP: 9}) == {TP: None}
    assert ingestion.stored_up_to({TP: (5_000, 12)}, {TP: 10}) == {TP: None}
