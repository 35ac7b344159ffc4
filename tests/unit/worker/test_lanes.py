from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stores.model import DeltaGroup
from tests.builders import a_group, a_version
from worker.lanes import SMALLEST_SPLIT, split_into_lanes


def a_large_group(size: int, *, kind: str = "user", offset: int = 0) -> DeltaGroup:
    keys = [f"{offset}-{number}" for number in range(size)]
    return a_group(*keys, context_kind=kind, version=a_version(offset=offset))


def test_each_context_kind_has_a_lane_of_its_own() -> None:
    lanes = split_into_lanes(
        [(1, a_group("u1")), (2, a_group("d1", context_kind="device")), (1, a_group("u2"))], in_two=True
    )

    assert [(lane.context_kind, lane.size) for lane in lanes] == [("user", 2), ("device", 1)]


def test_a_kind_that_dominates_is_split_into_two_lanes_by_segment() -> None:
    lanes = split_into_lanes(
        [(segment, a_large_group(SMALLEST_SPLIT, offset=segment)) for segment in range(4)], in_two=True
    )

    assert [lane.size for lane in lanes] == [2 * SMALLEST_SPLIT, 2 * SMALLEST_SPLIT]
    first, second = ({segment for segment, _ in lane.deltas} for lane in lanes)
    assert not first & second


def test_a_segment_that_dominates_is_split_itself() -> None:
    lanes = split_into_lanes([(1, a_large_group(2 * SMALLEST_SPLIT))], in_two=True)

    assert [lane.size for lane in lanes] == [SMALLEST_SPLIT, SMALLEST_SPLIT]


def test_a_small_batch_is_not_worth_two_transactions() -> None:
    assert len(split_into_lanes([(1, a_group("u1")), (2, a_group("u2"))], in_two=True)) == 1


def test_unless_asked_for_two_a_kind_has_one_lane() -> None:
    lanes = split_into_lanes(
        [(1, a_large_group(2 * SMALLEST_SPLIT)), (2, a_large_group(1, kind="device"))], in_two=False
    )

    assert [(lane.context_kind, lane.size) for lane in lanes] == [("user", 2 * SMALLEST_SPLIT), ("device", 1)]


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["user", "device"]), st.integers(1, 2 * SMALLEST_SPLIT)),
        max_size=8,
    ),
    st.booleans(),
)
def test_no_delta_is_lost_or_doubled_by_splitting(sizes: list[tuple[int, str, int]], in_two: bool) -> None:
    deltas = [
        (segment, a_large_group(size, kind=kind, offset=number)) for number, (segment, kind, size) in enumerate(sizes)
    ]

    def contexts(parts: list[tuple[int, DeltaGroup]]) -> Counter[tuple[int, str, str]]:
        return Counter((segment, group.context_kind, key) for segment, group in parts for key in group.context_keys)

    lanes = split_into_lanes(deltas, in_two=in_two)

    assert contexts([part for lane in lanes for part in lane.deltas]) == contexts(deltas)
