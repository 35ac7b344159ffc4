from __future__ import annotations

from consumers.record import TopicPartition
from worker.checkpoint import Checkpoint

FIRST, SECOND = TopicPartition("cohorts", 0), TopicPartition("cohorts", 1)


def test_only_what_kafka_has_not_acknowledged_is_pending() -> None:
    checkpoint = Checkpoint()
    checkpoint.advance({FIRST: 5, SECOND: 3})
    checkpoint.committed({FIRST: 5})

    assert checkpoint.pending() == {SECOND: 3}


def test_a_commit_that_failed_is_said_again_with_what_came_since() -> None:
    checkpoint = Checkpoint()
    checkpoint.advance({FIRST: 5})
    checkpoint.advance({FIRST: 9})

    assert checkpoint.pending() == {FIRST: 9}


def test_offsets_never_go_back() -> None:
    checkpoint = Checkpoint()
    checkpoint.advance({FIRST: 9})
    checkpoint.advance({FIRST: 5})

    assert checkpoint.pending() == {FIRST: 9}
