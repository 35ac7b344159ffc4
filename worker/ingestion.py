"""Up to when everything that had arrived in a partition is stored, by our own clock and not by that of any producer."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from consumers.record import TopicPartition

REMEMBERED = 600
"""Moments of each partition. About one a second is kept, so it may be ten minutes behind before some are forgotten."""


class _Moment(NamedTuple):
    at_ms: int
    highwater: int


class Ingestion:
    """Remembers where each partition ended when, and compares it with what is stored."""

    def __init__(self) -> None:
        self._moments: dict[TopicPartition, deque[_Moment]] = {}

    def stored_up_to(
        self,
        highwaters: Mapping[TopicPartition, tuple[int, int] | None],
        stored: Mapping[TopicPartition, int],
    ) -> dict[TopicPartition, datetime | None]:
        """By partition: the latest moment at which it held nothing that is not stored by now.

        `highwaters` says where each ended when it was last asked (unix ms; None where it is not ours to say), `stored`
        the next offset behind all that is stored. None: no such moment is known, which changes nothing that was told.
        """
        self._moments = {tp: moments for tp, moments in self._moments.items() if highwaters.get(tp) is not None}
        return {tp: self._of(tp, known, stored.get(tp)) for tp, known in highwaters.items()}

    def _of(self, tp: TopicPartition, known: tuple[int, int] | None, next_offset: int | None) -> datetime | None:
        if known is None:
            return None
        moments = self._moments.setdefault(tp, deque(maxlen=REMEMBERED))
        if not moments or moments[-1].at_ms < known[0]:
            moments.append(_Moment(*known))
        if next_offset is None:
            return None
        passed = None
        while moments and moments[0].highwater <= next_offset:
            passed = moments.popleft()
        return None if passed is None else datetime.fromtimestamp(passed.at_ms / 1000, UTC)
