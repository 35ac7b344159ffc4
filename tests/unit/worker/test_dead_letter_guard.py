from __future__ import annotations

from worker.dead_letter_guard import DeadLetterGuard


def test_a_topic_is_held_when_most_of_a_full_window_was_rejected() -> None:
    guard = DeadLetterGuard(max_ratio=0.5, window_records=10)

    outcomes = [guard.observe("cohorts", 1.0) for _ in range(10)]

    assert outcomes == [False] * 9 + [True]
    assert guard.held_topics == {"cohorts"}


def test_a_few_bad_records_at_the_start_hold_nothing() -> None:
    guard = DeadLetterGuard(max_ratio=0.5, window_records=10)

    assert not any(guard.observe("cohorts", 1.0) for _ in range(9))


def test_one_bad_member_in_each_record_holds_nothing() -> None:
    guard = DeadLetterGuard(max_ratio=0.5, window_records=10)

    assert not any(guard.observe("cohorts", 0.001) for _ in range(1_000))


def test_records_that_were_bad_long_ago_no_longer_count() -> None:
    guard = DeadLetterGuard(max_ratio=0.5, window_records=10)
    for _ in range(5):
        guard.observe("cohorts", 1.0)
    for _ in range(100):
        assert not guard.observe("cohorts", 0.0)

    assert not any(guard.observe("cohorts", 1.0) for _ in range(5))
    assert guard.observe("cohorts", 1.0)


def test_a_bad_topic_does_not_hold_another() -> None:
    guard = DeadLetterGuard(max_ratio=0.5, window_records=10)
    for _ in range(10):
        guard.observe("bad", 1.0)
        guard.observe("good", 0.0)

    assert guard.held_topics == {"bad"}


def test_records_that_the_store_rejects_later_count_with_their_share_of_the_window() -> None:
    guard = DeadLetterGuard(max_ratio=0.5, window_records=10)
    for _ in range(1_000):
        guard.observe("cohorts", 0.0)

    assert not guard.observe_later("cohorts", 30, among=1_000)
    assert guard.observe_later("cohorts", 900, among=1_000)
    assert guard.held_topics == {"cohorts"}
