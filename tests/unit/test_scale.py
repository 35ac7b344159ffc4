"""The cost model and the simulation behind deploy/docs/scale.md, and that the page says what they say."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scale.costs import Kind, load
from tests.scale.hours import drain_seconds
from tests.scale.model import CHANGES, COPIES, Hardware, Needs, Workload, distinct, needs, replica_rate
from tests.scale.page import PAGE, TABLES, filled
from tests.scale.simulation import Scenario, longest_wait, percentile, share_out, simulate, spread

MEASURED = load()
MIXES = st.sampled_from([CHANGES, COPIES, {Kind.NEW: 1.0}, {Kind.FLIP: 1.0}, {Kind.STALE: 1.0}])
rates = st.floats(1, 1e6)
counts = st.floats(1e3, 1e9)
more = st.floats(1, 10)


def amounts(need: Needs) -> list[float]:
    """All of it that must not fall when there is more to do."""
    one = need.primary
    parts = [need.worker_cores, need.replicas, need.partitions, need.kafka_mb_s, need.cells, need.redis_gb]
    return [*parts, need.dynamodb_gb, need.refill_s, need.rebuild_s, *one]


def at_least(larger: Needs, smaller: Needs) -> bool:
    return all(more >= less * (1 - 1e-9) for more, less in zip(amounts(larger), amounts(smaller), strict=True))


@given(counts, rates, more, MIXES)
def test_more_deltas_never_need_less_of_anything(memberships: float, rate: float, more: float, mix: object) -> None:
    smaller = Workload(memberships, rate, mix=mix)  # type: ignore[arg-type]

    assert at_least(needs(smaller._replace(deltas_a_second=more * rate), MEASURED), needs(smaller, MEASURED))


@given(counts, rates, more, MIXES)
def test_more_memberships_never_need_less_of_anything(
    memberships: float, rate: float, more: float, mix: object
) -> None:
    smaller = Workload(memberships, rate, mix=mix)  # type: ignore[arg-type]

    assert at_least(needs(smaller._replace(memberships=more * memberships), MEASURED), needs(smaller, MEASURED))


@given(counts, rates, st.floats(1, 1000), more)
def test_smaller_records_never_need_fewer_cores(memberships: float, rate: float, members: float, more: float) -> None:
    load = Workload(memberships, rate, members_a_record=members)
    smaller = load._replace(members_a_record=max(1.0, members / more))

    assert needs(smaller, MEASURED).worker_cores >= needs(load, MEASURED).worker_cores * (1 - 1e-9)


@given(counts, rates, st.floats(60, 3600), more)
def test_rarer_checkpoints_never_log_more(memberships: float, rate: float, checkpoint_s: float, more: float) -> None:
    load = Workload(memberships, rate)
    often, rarely = (
        needs(load, MEASURED, Hardware(checkpoint_s=seconds)).primary.wal_mb
        for seconds in (checkpoint_s, checkpoint_s * more)
    )

    assert rarely <= often * (1 + 1e-9)


@given(counts, rates)
def test_every_cell_bears_its_part(memberships: float, rate: float) -> None:
    need = needs(Workload(memberships, rate), MEASURED)
    part = needs(Workload(memberships / need.cells, rate / need.cells), MEASURED)

    assert part.cells == 1


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_no_more_pages_are_met_than_there_are_or_are_drawn(drawn: int, among: int) -> None:
    assert distinct(drawn, among) <= min(drawn, among) * (1 + 1e-6)


scenarios = st.builds(
    Scenario,
    deltas_a_second=st.floats(0, 1e5),
    partitions=st.integers(1, 12),
    replicas=st.integers(1, 12),
    replica_rate=st.floats(1, 1e5),
    primary_rate=st.floats(1, 1e5),
    burst_s=st.floats(1, 60),
    hot_share=st.floats(0, 1),
    segments=st.just(50),
    seconds=st.just(60.0),
    step_s=st.just(1.0),
    seed=st.integers(0, 3),
)


@given(scenarios)
def test_the_simulation_conserves_deltas(scenario: Scenario) -> None:
    outcome = simulate(scenario)

    assert outcome.arrived == pytest.approx(scenario.deltas_a_second * scenario.seconds)
    assert outcome.stored[-1] + outcome.backlog_left == pytest.approx(outcome.arrived, abs=1e-3)
    assert sum(outcome.busy) == pytest.approx(outcome.stored[-1], abs=1e-3)
    assert outcome.p99_s <= outcome.worst_s
    assert all(after >= before for before, after in pairwise(outcome.stored))


@given(scenarios)
def test_nobody_stores_faster_than_it_can(scenario: Scenario) -> None:
    outcome = simulate(scenario)
    seconds = scenario.seconds * (1 + 1e-9)

    assert outcome.stored[-1] <= scenario.primary_rate * seconds + 1e-3
    assert max(outcome.busy) <= scenario.replica_rate * seconds + 1e-3


@given(scenarios)
def test_nothing_waits_where_every_part_can_do_more_than_comes(scenario: Scenario) -> None:
    peak = scenario.deltas_a_second * scenario.seconds / scenario.burst_s
    ample = scenario._replace(replica_rate=peak + 1, primary_rate=peak + 1)
    outcome = simulate(ample)

    assert outcome.backlog_left == 0
    assert outcome.worst_s <= ample.step_s


def test_who_follows_faster_than_is_stored_never_waits_and_who_is_slower_waits_for_what_heaped_up() -> None:
    stored = [100.0, 200.0, 300.0, 300.0]

    assert longest_wait(stored, rate=100, step_s=1) == 0
    assert longest_wait(stored, rate=50, step_s=1) == 3
    assert longest_wait([], rate=50, step_s=1) == 0


@given(counts, rates, st.integers(1, 4))
def test_more_cells_read_more_and_decode_more(memberships: float, rate: float, cells: int) -> None:
    load = Workload(memberships, rate)
    need = needs(load, MEASURED)

    assert need.kafka_read_mb_s == pytest.approx(need.cells * need.kafka_mb_s)
    assert replica_rate(load, MEASURED, Hardware(), cells=cells + 1) <= replica_rate(
        load, MEASURED, Hardware(), cells=cells
    )


def test_replicas_beyond_partitions_do_nothing() -> None:
    few = Scenario(1_000, partitions=4, replicas=4, replica_rate=200, primary_rate=1e6, seconds=60)
    many = few._replace(replicas=9)

    assert simulate(many).stored == simulate(few).stored
    assert simulate(many).busy[4:] == [0] * 5


def test_a_hot_segment_is_stored_by_one_replica_however_many_there_are() -> None:
    hot = Scenario(1_000, partitions=16, replicas=16, replica_rate=200, primary_rate=1e6, hot_share=0.5, seconds=60)

    assert simulate(hot).backlog_left > 60 * (500 - 200) * 0.99
    assert simulate(hot._replace(partitions=64, replicas=64)).backlog_left > 60 * (500 - 200) * 0.99
    assert simulate(hot._replace(hot_share=0)).backlog_left == 0


def test_a_primary_that_is_the_limit_is_one_whatever_the_replicas() -> None:
    narrow = Scenario(1_000, partitions=16, replicas=4, replica_rate=1_000, primary_rate=600, seconds=60)

    for replicas in (1, 4, 16):
        assert simulate(narrow._replace(replicas=replicas)).stored[-1] == pytest.approx(60 * 600)


def test_freshness_of_a_burst_is_how_long_it_takes_to_work_off() -> None:
    burst = Scenario(100, partitions=8, replicas=8, replica_rate=1e6, primary_rate=500, burst_s=1, seconds=60)
    outcome = simulate(burst)

    assert outcome.backlog == pytest.approx(6_000)
    assert outcome.worst_s == 12


@given(st.floats(0, 1e6), st.lists(st.floats(0, 1e6), max_size=10))
def test_what_is_shared_out_is_all_that_there_is_and_no_more_than_is_wanted(
    capacity: float, wanted: list[float]
) -> None:
    got = share_out(capacity, wanted)

    assert sum(got) == pytest.approx(min(capacity, sum(wanted)), abs=1e-6)
    assert all(part <= want for part, want in zip(got, wanted, strict=True))


@given(scenarios)
def test_every_delta_falls_into_a_partition(scenario: Scenario) -> None:
    assert sum(spread(scenario)) == pytest.approx(1)


def test_percentiles_are_those_of_the_weights() -> None:
    assert percentile({1.0: 98, 2.0: 1, 30.0: 1}, 0.99) == 2
    assert percentile({}, 0.99) == 0


def test_the_simulation_is_not_far_from_the_drains_that_were_measured() -> None:
    for drain in MEASURED.drains:
        assert drain_seconds(drain, MEASURED) == pytest.approx(drain.seconds, rel=0.3)


def test_the_page_says_what_the_model_says() -> None:
    page = PAGE.read_text()

    assert re.findall(r"^<!-- ([a-z ]+) -->$", page, re.MULTILINE) == list(TABLES)
    assert filled(page, MEASURED) == page
