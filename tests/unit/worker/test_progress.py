"""Of what moment a target may be called whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from stores.postgres.change_feed import FeedPosition
from worker.progress import Progress

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
PLACE = "cohorts", 0


def second(number: int, *unswept: int, horizon: int | None = None) -> FeedPosition:
    """Each second has a transaction, after which all that had arrived was stored."""
    at = START + timedelta(seconds=number)
    return FeedPosition(horizon or number, number, at, {PLACE: at}, frozenset(unswept))


def said(progress: Progress) -> int | None:
    """The second that the whole target bears, if it is known."""
    assert progress.whole is not None
    until = progress.whole.stored_up_to.get(PLACE)
    return None if until is None else int((until - START).total_seconds())


def test_a_moment_is_whole_when_no_transaction_of_its_time_runs_any_more() -> None:
    progress = Progress()
    for number in (1, 2, 3):
        progress.observe(second(number))

    progress.applied_to(second(4, horizon=2))
    assert said(progress) == 2
    progress.applied_to(second(5))
    assert said(progress) == 3


def test_nothing_newer_than_a_clearing_counts_until_it_is_swept() -> None:
    progress = Progress()
    heard = []
    for number, unswept in enumerate([[], [], [7], [7], [], []], start=1):
        progress.observe(second(number, *unswept))
        progress.applied_to(second(number))
        heard.append(said(progress))

    assert heard == [1, 2, 2, 2, 5, 6]


def test_clearings_that_overlap_for_ever_hold_nothing_for_ever() -> None:
    progress = Progress()
    heard = []
    for number in range(1, 9):
        progress.observe(second(number, number, number + 1))  # each is first seen with the one before it
        progress.applied_to(second(number))
        heard.append(said(progress))

    assert heard == [None, None, 1, 2, 3, 4, 5, 6]


def test_a_clearing_that_was_there_before_anything_was_seen_lets_nothing_be_said() -> None:
    progress = Progress()
    progress.observe(second(1, 7))
    progress.applied_to(second(1))
    assert said(progress) is None

    progress.observe(second(2))
    progress.applied_to(second(2))
    assert said(progress) == 2
