"""Hours that are simulated, and runs that were measured beside what the simulation says of them."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from tests.scale import text
from tests.scale.costs import Drain, Kind, Measured, PageImages
from tests.scale.model import Hardware, Workload, distinct, primary_rate, projector_rate, replica_rate
from tests.scale.simulation import HOUR_S, Outcome, Scenario, longest_wait, simulate
from tests.scale.text import BILLION, MILLION, MINUTE_S


class Case(NamedTuple):
    """An hour to simulate: a load, how it comes, and what it is given."""

    load: Workload
    burst_s: float
    partitions: int
    replicas: int
    cells: int = 1
    hot_share: float = 0.0


FRESH_S = 2.0
STEP_S = 1.0
NOTICEABLE = 0.95
"""To less than this share a wait has to fall, or nothing is gained."""
DRAIN_STEP_S = 0.02
DRAIN_AT_MOST_S = 30.0
MANY = 100_000
"""So many segments that no partition has more than another."""
SMALL, MIDDLE = Workload(10 * MILLION, 10_000), Workload(100 * MILLION, 100_000)
LARGE, LARGEST = Workload(BILLION, 100_000), Workload(BILLION, MILLION)
CASES = (
    Case(SMALL, HOUR_S, 8, 2),
    Case(SMALL, MINUTE_S, 8, 2),
    Case(SMALL, MINUTE_S, 8, 8),
    Case(SMALL, MINUTE_S, 8, 16),
    Case(SMALL, MINUTE_S, 32, 16),
    Case(SMALL, 10 * MINUTE_S, 8, 2),
    Case(SMALL, 2 * MINUTE_S, 32, 16),
    Case(SMALL, 2 * MINUTE_S, 32, 16, hot_share=0.4),
    Case(MIDDLE, HOUR_S, 8, 4),
    Case(MIDDLE, 15 * MINUTE_S, 8, 4),
    Case(MIDDLE, 15 * MINUTE_S, 8, 8),
    Case(MIDDLE, 15 * MINUTE_S, 32, 16),
    Case(LARGE, HOUR_S, 16, 4),
    Case(LARGE, 15 * MINUTE_S, 32, 16),
    Case(LARGE, 15 * MINUTE_S, 32, 16, cells=4),
    Case(LARGEST, HOUR_S, 64, 32),
    Case(LARGEST, HOUR_S, 64, 32, cells=2),
    Case(LARGEST, HOUR_S, 64, 32, cells=4),
    Case(LARGEST, HOUR_S, 64, 32, cells=4, hot_share=0.4),
    Case(LARGEST._replace(environments=64), HOUR_S, 128, 64, cells=4),
)


def simulated(measured: Measured) -> str:
    """Hours of loads, with what they are given."""
    return text.table(
        (
            "memberships, mean deltas/s",
            "they come",
            "environments",
            "cells",
            "partitions",
            "replicas",
            "hot segment",
            "p99",
            "worst",
            "largest backlog",
            "left after the hour",
            "a projector then behind by",
            "what helps most",
        ),
        (_hour(case, measured) for case in CASES),
    )


def _hour(case: Case, measured: Measured) -> tuple[str, ...]:
    outcome = simulate(of_one_cell(case, measured))
    load = case.load
    return (
        text.workload(load),
        "evenly" if case.burst_s == HOUR_S else f"within {text.time(case.burst_s)}",
        str(load.environments),
        str(case.cells),
        str(case.partitions),
        str(case.replicas),
        f"{case.hot_share:.0%}" if case.hot_share else "",
        text.time(outcome.p99_s),
        text.time(outcome.worst_s),
        text.count(outcome.backlog * case.cells),
        text.count(outcome.backlog_left * case.cells) if outcome.backlog_left > 1 else "",
        text.time(behind) if (behind := projector_behind_s(case, outcome, measured)) >= 1 else "",
        _what_helps(case, measured),
    )


def projector_behind_s(case: Case, outcome: Outcome, measured: Measured) -> float:
    """How long the projector of the environment with most changes takes after the commit, at worst."""
    environments = case.load.environments / case.cells
    share = case.hot_share + (1 - case.hot_share) / environments
    changes = case.load.changes_a_second / case.load.deltas_a_second
    return longest_wait(
        [share * changes * stored for stored in outcome.stored], projector_rate(measured, Hardware()), STEP_S
    )


def of_one_cell(case: Case, measured: Measured) -> Scenario:
    """One of the cells, among which all is shared out evenly. A burst comes right after a checkpoint, before VACUUM.

    Every cell reads all partitions, and skips what is not its own.
    """
    part = case.load._replace(
        memberships=case.load.memberships / case.cells, deltas_a_second=case.load.deltas_a_second / case.cells
    )
    machines = Hardware()
    peak = part._replace(deltas_a_second=part.deltas_a_second * HOUR_S / case.burst_s)
    meanwhile = machines._replace(checkpoint_s=min(machines.checkpoint_s, case.burst_s))
    return Scenario(
        deltas_a_second=part.deltas_a_second,
        partitions=case.partitions,
        replicas=case.replicas // case.cells,
        replica_rate=replica_rate(part, measured, machines, cells=case.cells),
        primary_rate=primary_rate(peak, measured, meanwhile, vacuum_waits=case.burst_s < HOUR_S),
        burst_s=case.burst_s,
        hot_share=case.hot_share,
        step_s=STEP_S,
    )


def _what_helps(case: Case, measured: Measured) -> str:
    """Which of these alone shortens the longest wait most; of equals the first."""
    turns = {
        "twice the replicas": case._replace(replicas=2 * case.replicas),
        "twice the partitions": case._replace(partitions=2 * case.partitions),
        "twice the partitions and replicas": case._replace(partitions=2 * case.partitions, replicas=2 * case.replicas),
        "twice the cells, with the same replicas": case._replace(
            cells=2 * case.cells,
            hot_share=min(1.0, 2 * case.hot_share),  # a segment is in one of them
        ),
        "another key for the hot segment's records": case._replace(hot_share=0.0),
        "twice the environments": case._replace(load=case.load._replace(environments=2 * case.load.environments)),
    }

    def worst_s(turn: Case) -> float:
        outcome = simulate(of_one_cell(turn, measured))
        return outcome.worst_s + projector_behind_s(turn, outcome, measured)

    now_s = worst_s(case)
    if now_s <= FRESH_S:
        return "nothing is needed"
    then_s = {name: worst_s(turn) for name, turn in turns.items() if turn.cells <= turn.load.environments}
    best_s = min(then_s.values())
    if best_s > NOTICEABLE * now_s:
        return "none of it alone"
    return next(name for name, worst_s in then_s.items() if NOTICEABLE * worst_s <= best_s)


def proof(measured: Measured) -> str:
    """What the model says of runs that were measured."""
    drains = text.table(
        ("a topic that waits, drained on the cores above", "simulated", "measured", "error"),
        (_drained(drain, measured) for drain in measured.drains),
    )
    images = text.table(
        ("page images right after a checkpoint", "by the formula", "measured", "error"),
        (_imaged(images) for images in measured.page_images),
    )
    return f"{drains}\n\n{images}"


def _drained(drain: Drain, measured: Measured) -> tuple[str, ...]:
    name = f"{text.count(drain.deltas)} new members, {drain.workers} worker{'s' * (drain.workers > 1)}"
    if drain.hot_share:
        name += f", {drain.hot_share:.0%} in one of {drain.partitions} partitions"
    expected_s = drain_seconds(drain, measured)
    return name, f"{expected_s:.2f} s", f"{drain.seconds:.2f} s", text.error(expected_s, drain.seconds)


def drain_seconds(drain: Drain, measured: Measured) -> float:
    """What the simulation says of a drain, all of whose parts share the cores of one machine.

    A worker alone has two writes under way at a time, and one among several one.
    """
    cost = measured.deltas[Kind.NEW]
    writes = 1 if drain.workers > 1 else 2
    all_parts_s = cost.worker_cpu_s + cost.postgres_cpu_s + cost.kafka_cpu_s
    simulated = Scenario(
        deltas_a_second=drain.deltas / DRAIN_AT_MOST_S,
        partitions=drain.partitions,
        replicas=drain.workers,
        replica_rate=MILLION / max(cost.worker_cpu_s, cost.postgres_cpu_s / writes),
        primary_rate=measured.machine.cores * MILLION / all_parts_s,
        burst_s=DRAIN_STEP_S,
        hot_share=drain.hot_share,
        segments=MANY,
        seconds=DRAIN_AT_MOST_S,
        step_s=DRAIN_STEP_S,
    )
    stored = simulate(simulated).stored
    begun, ended = (bisect_left(stored, share * drain.deltas) for share in (drain.skipped, 1 - 1 / drain.deltas))
    return (ended - begun) * DRAIN_STEP_S


def _imaged(images: PageImages) -> tuple[str, ...]:
    expected = distinct(images.deltas, images.heap_pages)
    if images.kind is Kind.FLIP:
        expected += distinct(images.deltas, images.key_index_pages)
    pages = f"{images.heap_pages:,} pages of rows and {images.key_index_pages:,} of the key's index"
    name = f"{text.count(images.deltas)} times a {images.kind}, among {pages}"
    return name, f"{expected:,.0f}", f"{images.images:,}", text.error(expected, images.images)
