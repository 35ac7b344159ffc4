from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.model import Position, PositionOverflowError, Version, is_context_kind

positions = st.builds(Position, st.integers(0, 511), st.integers(0, 4095), st.integers(0, 2**42 - 1))


@given(positions)
def test_a_position_is_found_again_in_its_packed_form(position: Position) -> None:
    assert Position.unpack(position.pack()) == position
    assert 0 <= position.pack() < 2**63


@given(positions, positions)
def test_packed_positions_are_ordered_like_their_parts(first: Position, second: Position) -> None:
    assert (first.pack() < second.pack()) == (first < second)


@pytest.mark.parametrize("position", [Position(512, 0, 0), Position(0, 4096, 0), Position(0, 0, 2**42)])
def test_a_position_that_does_not_fit_is_refused(position: Position) -> None:
    with pytest.raises(PositionOverflowError, match="does not fit"):
        position.pack()


def test_event_time_decides_before_position() -> None:
    assert Version(2, 0) > Version(1, 999)
    assert Version(1, 2) > Version(1, 1)


@pytest.mark.parametrize(
    ("kind", "accepted"),
    [("user", True), ("my-org_2.x", True), ("kind", False), ("multi", False), ("", False), ("my kind!", False)],
)
def test_context_kinds_are_those_that_sdks_accept(kind: str, accepted: bool) -> None:
    assert is_context_kind(kind) is accepted
