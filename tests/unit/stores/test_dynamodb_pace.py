"""How fast a table is asked, from what it says."""

from __future__ import annotations

import pytest

from stores.dynamodb.pace import FIRST_WAIT_S, LONGEST_WAIT_S, PATIENCE_S, Pace
from stores.errors import StoreUnavailableError


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_nobody_waits_for_a_table_that_takes_all() -> None:
    pace = Pace()
    pace.succeeded(0.0)

    assert pace.wait_s == 0


def test_a_refusal_doubles_the_wait_up_to_a_bound_and_successes_end_it() -> None:
    pace = Pace()
    waits = []
    for _ in range(10):
        pace.throttled("busy", pace.wait_s)
        waits.append(pace.wait_s)
    assert waits[:3] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S

    for _ in range(10):
        pace.succeeded(pace.wait_s)
    assert pace.wait_s == 0


def test_a_burst_of_refusals_doubles_the_wait_once() -> None:
    pace = Pace()
    for _ in range(16):
        pace.throttled("busy", 0.0)

    assert pace.wait_s == FIRST_WAIT_S


def test_a_table_that_takes_nothing_at_all_is_given_up_after_a_while() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for _ in range(3):
        pace.throttled("busy", 0.0)
        clock.now_s += PATIENCE_S / 3
    clock.now_s += 1
    with pytest.raises(StoreUnavailableError, match="busy"):
        pace.throttled("busy", 0.0)


def test_one_success_in_between_is_progress() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for _ in range(100):
        pace.throttled("busy", 0.0)
        clock.now_s += PATIENCE_S
        pace.succeeded(0.0)
