"""Lanes: how a batch is shared out among the writer tasks that put it into the store side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from stores.model import DeltaGroup

SMALLEST_SPLIT = 1_000
"""Below so many deltas a second transaction costs more than it saves."""


class Lane(msgspec.Struct):
    """Deltas of one context kind that one writer task puts into the store; each group comes with its segment's id."""

    context_kind: str
    deltas: list[tuple[int, DeltaGroup]]
    size: int = 0

    def add(self, piece: Lane) -> None:
        """Takes these deltas in too."""
        self.deltas += piece.deltas
        self.size += piece.size


def split_into_lanes(deltas: Sequence[tuple[int, DeltaGroup]], *, in_two: bool) -> list[Lane]:
    """One lane for each context kind. On request a kind that dominates is split in two: two writes use two cores."""
    pieces_of: dict[str, list[Lane]] = {}
    for piece in _by_segment(deltas):
        pieces_of.setdefault(piece.context_kind, []).append(piece)
    total = sum(piece.size for pieces in pieces_of.values() for piece in pieces)
    lanes: list[Lane] = []
    for kind, pieces in pieces_of.items():
        dominates = in_two and 2 * sum(piece.size for piece in pieces) > total >= SMALLEST_SPLIT
        lanes += _share_out(kind, pieces, among=2 if dominates else 1)
    return lanes


def _by_segment(deltas: Iterable[tuple[int, DeltaGroup]]) -> Iterable[Lane]:
    pieces: dict[tuple[int, str], Lane] = {}
    for delta in deltas:
        segment_id, group = delta
        piece = pieces.get((segment_id, group.context_kind))
        if piece is None:
            piece = pieces[segment_id, group.context_kind] = Lane(group.context_kind, [])
        piece.deltas.append(delta)
        piece.size += len(group.context_keys)
    return pieces.values()


def _share_out(kind: str, pieces: Sequence[Lane], *, among: int) -> list[Lane]:
    """So many lanes of about the same size, by segment; a segment that is too large for one is cut itself.

    A context that then stands in both lanes is decided by its versions, like any other.
    """
    fair_size = sum(piece.size for piece in pieces) / among
    parts = [part for piece in pieces for part in (_cut(piece) if piece.size > fair_size else [piece])]
    lanes = [Lane(kind, []) for _ in range(among)]
    for part in sorted(parts, key=lambda part: part.size, reverse=True):
        min(lanes, key=lambda lane: lane.size).add(part)
    return [lane for lane in lanes if lane.deltas]


def _cut(piece: Lane) -> list[Lane]:
    """Its two halves."""
    if len(piece.deltas) == 1:
        segment_id, group = piece.deltas[0]
        middle = len(group) // 2
        halves = [[(segment_id, group.part(0, middle))], [(segment_id, group.part(middle, len(group)))]]
    else:
        middle = len(piece.deltas) // 2
        halves = [piece.deltas[:middle], piece.deltas[middle:]]
    return [Lane(piece.context_kind, half, sum(len(group) for _, group in half)) for half in halves]
