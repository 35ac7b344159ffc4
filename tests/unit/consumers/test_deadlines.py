"""Waits that end in time, and cost no timer each."""

from __future__ import annotations

import asyncio
import time

import pytest

from consumers.deadlines import LONGER_AT_MOST_S, Deadlines


async def test_a_wait_that_is_too_long_ends_and_the_task_goes_on() -> None:
    deadlines = Deadlines(0.05)
    began = time.monotonic()

    for _ in range(2):
        with pytest.raises(TimeoutError), deadlines.wait():
            await asyncio.Event().wait()

    assert 0.1 <= time.monotonic() - began < 2 * (0.05 + LONGER_AT_MOST_S) + 0.2
    await asyncio.sleep(0)


async def test_a_wait_that_is_short_is_left_alone_and_its_result_and_error_come_out() -> None:
    deadlines = Deadlines(0.05)

    with deadlines.wait():
        result = await asyncio.sleep(0.01, "done")
    with pytest.raises(ZeroDivisionError), deadlines.wait():
        await fail()
    await asyncio.sleep(0.2)

    assert result == "done"


async def fail() -> None:
    await asyncio.sleep(0.01)
    raise ZeroDivisionError


async def test_only_those_that_are_late_are_ended() -> None:
    deadlines = Deadlines(0.3)

    async def wait(after_s: float, for_s: float) -> str:
        await asyncio.sleep(after_s)
        try:
            with deadlines.wait():
                await asyncio.sleep(for_s)
        except TimeoutError:
            return "late"
        return "done"

    waits = [wait(0, 10), wait(0, 0.1), wait(0.1, 10), wait(0.2, 0.05)]

    assert await asyncio.gather(*waits) == ["late", "done", "late", "done"]


async def test_who_is_cancelled_by_others_is_cancelled_and_not_late() -> None:
    deadlines = Deadlines(0.05)

    async def wait() -> None:
        with deadlines.wait():
            await asyncio.sleep(10)

    for after_s in (0, 0.01):
        task = asyncio.create_task(wait())
        await asyncio.sleep(after_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_wait_within_a_longer_one_ends_alone() -> None:
    outer, inner = Deadlines(5), Deadlines(0.05)

    with outer.wait():
        with pytest.raises(TimeoutError), inner.wait():
            await asyncio.sleep(10)
        assert await asyncio.sleep(0.01, "goes on") == "goes on"
