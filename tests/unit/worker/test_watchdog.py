"""The watchdog, from outside: a process of its own hangs, and is expected to end."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import pytest

BEFORE = """
import asyncio, os, sys, time
from worker.health import Health
from worker.instruments import Instruments
from worker.logs import setup_logging
from worker.metrics import Metrics
from worker.watchdog import Watchdog, measure_loop_lag

setup_logging(format="json")
instruments = Instruments(Metrics(), Health())

def hang_up(secret="bob@example.com"):
    time.sleep(60)

async def wait_in_vain(secret="bob@example.com"):
    await asyncio.sleep(60)
"""


# Times are far from the watchdog's own beat, so that a machine that hesitates does not decide a test.


class Ended(NamedTuple):
    """How a process ended, and its last words."""

    status: int
    errors: str

    @property
    def last_event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.errors.splitlines()[-1])
        return event


def run(body: str) -> Ended:
    code = BEFORE + "async def main():\n" + textwrap.indent(textwrap.dedent(body), "    ") + "\nasyncio.run(main())\n"
    folder = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )
    return Ended(done.returncode, done.stderr)


def test_a_blocked_event_loop_ends_the_process_and_the_log_says_where_it_hung() -> None:
    ended = run(
        """
        with Watchdog(instruments.health, stall_s=0.7):
            await asyncio.sleep(0.1)
            hang_up()
        """
    )
    assert ended.status == 1
    assert ended.last_event["event"] == "event_loop_stalled"
    assert any("hang_up" in line for line in ended.last_event["where"])
    assert "bob@example.com" not in ended.errors


def test_a_pipeline_that_waits_in_vain_ends_the_process_and_the_log_says_for_what() -> None:
    ended = run(
        """
        instruments.health.progress()
        with Watchdog(instruments.health, stall_s=2):
            await asyncio.create_task(wait_in_vain(), name="pipeline")
        """
    )
    assert ended.status == 1
    assert ended.last_event["event"] == "pipeline_stalled"
    assert "task pipeline:" in ended.last_event["where"]
    assert any("wait_in_vain" in line for line in ended.last_event["where"])
    assert "bob@example.com" not in ended.errors


def test_a_pipeline_that_makes_progress_is_left_alone() -> None:
    ended = run(
        """
        with Watchdog(instruments.health, stall_s=3):
            for _ in range(40):
                instruments.health.progress()
                await asyncio.sleep(0.1)
        """
    )
    assert ended == Ended(0, "")


def test_a_start_that_waits_for_its_store_is_left_alone() -> None:
    assert run("with Watchdog(instruments.health, stall_s=3):\n    await asyncio.sleep(4)") == Ended(0, "")


def test_after_its_end_it_watches_no_more() -> None:
    assert run("with Watchdog(instruments.health, stall_s=0.5):\n    pass\ntime.sleep(1.5)") == Ended(0, "")


def test_a_standard_error_that_takes_no_more_does_not_keep_the_process() -> None:
    ended = run(
        """
        import worker.watchdog
        worker.watchdog.REPORT_WITHIN_S = 0.3
        read, write = os.pipe()
        os.set_blocking(write, False)
        try:
            while True:
                os.write(write, bytes(1 << 16))
        except BlockingIOError:
            os.set_blocking(write, True)
        os.dup2(write, 2)
        with Watchdog(instruments.health, stall_s=0.7):
            hang_up()
        """
    )
    assert ended.status == 1


@pytest.mark.parametrize(("blocked_s", "least_s"), [(0.0, 0.0), (0.8, 0.2)])
def test_the_longest_lag_of_the_loop_is_shown(blocked_s: float, least_s: float) -> None:
    ended = run(
        f"""
        lag = asyncio.create_task(measure_loop_lag(instruments.metrics))
        await asyncio.sleep(0)
        time.sleep({blocked_s})
        await asyncio.sleep(1.2)
        print(instruments.metrics.event_loop_lag_seconds._value.get(), file=sys.stderr)
        lag.cancel()
        """
    )
    assert ended.status == 0
    assert least_s <= float(ended.errors) < 5
