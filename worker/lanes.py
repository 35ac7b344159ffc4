"""Lanes: how a batch is shared out among the writer tasks that put it into the store side by side."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stores.model import DeltaGroup

SMALLEST_SPLIT = 1_000
"""Below so many deltas a second transaction costs more than it saves."""


class Lane(msgspec.Struct, frozen=True):
    """Deltas of one context kind that one writer task puts into the store; each comes with its segment's id."""

    context_kind: str
    deltas: list[tuple[int, DeltaGroup]]

    def __len__(self) -> int:
        return sum(len(group) for _, group in self.deltas)


def split_into_lanes(deltas: Sequence[tuple[int, DeltaGroup]]) -> list[Lane]:
    """One lane for each context kind; a kind that dominates is split in two, since two writes use two cores."""
    by_kind: dict[str, Lane] = {}
    for segment_id, group in deltas:
        by_kind.setdefault(group.context_kind, Lane(group.context_kind, [])).deltas.append((segment_id, group))
    total = sum(map(len, by_kind.values()))
    result: list[Lane] = []
    for lane in by_kind.values():
        dominates = 2 * len(lane) > total >= SMALLEST_SPLIT
        result += _split(lane) if dominates else [lane]
    return result


def _split(lane: Lane) -> list[Lane]:
    """Two lanes of about the same size, by segment; a segment that is more than half of the lane is cut itself.

    A context that then stands in both lanes is decided by its versions, like any other.
    """
    by_segment: dict[int, list[tuple[int, DeltaGroup]]] = {}
    for segment_id, group in lane.deltas:
        by_segment.setdefault(segment_id, []).append((segment_id, group))
    half = len(lane) // 2
    pieces = [
        Lane(lane.context_kind, piece)
        for segment in by_segment.values()
        for piece in (_cut(segment) if _size(segment) > half else [segment])
    ]
    first, second = Lane(lane.context_kind, []), Lane(lane.context_kind, [])
    for piece in sorted(pieces, key=len, reverse=True):
        (first if len(first) <= len(second) else second).deltas.extend(piece.deltas)
    return [part for part in (first, second) if part.deltas]


def _cut(deltas: list[tuple[int, DeltaGroup]]) -> list[list[tuple[int, DeltaGroup]]]:
    if len(deltas) == 1:
        segment_id, group = deltas[0]
        middle = len(group) // 2
        return [[(segment_id, group.part(0, middle))], [(segment_id, group.part(middle, len(group)))]]
    middle = len(deltas) // 2
    return [deltas[:middle], deltas[middle:]]


def _size(deltas: list[tuple[int, DeltaGroup]]) -> int:
    return sum(len(group) for _, group in deltas)
