"""The index of members that were rejected lately, segment by segment. Bounded: it is no second dead letter topic."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from stores.model import SegmentKey
from stores.postgres.connection import Dsn, Pool
from stores.postgres.pooled import Pooled
from stores.postgres.queries import query

MOST_OF_SEGMENT = 1_000


class RejectedMember(NamedTuple):
    """A member that was not applied, or with `place` -1 a part of its record."""

    segment: SegmentKey
    position: int
    place: int
    reason: str
    detail: str
    member: str | None
    """As it was, as JSON; None where it is longer than people read."""


class NotedReject(NamedTuple):
    """The same as it is found again, with the coordinates of its record."""

    topic: str
    partition: int
    offset: int
    place: int | None
    reason: str
    detail: str
    member: str | None
    rejected_at: datetime


class RejectIndex(Pooled):
    """Takes note of rejects. Every method raises one of `stores.errors` and nothing else."""

    def __init__(self, dsn: Dsn) -> None:
        super().__init__(Pool(dsn, max_size=1))

    async def note(self, rejects: Sequence[RejectedMember]) -> None:
        """Keeps these, where their segments exist, and forgets older ones of the same segments."""
        columns = zip(*((*each.segment, *each[1:]) for each in rejects), strict=True)
        segments = sorted({each.segment for each in rejects})
        async with self._pool.session() as session, session.transaction():
            await session.execute(query("note_rejects"), *map(list, columns))
            await session.execute(
                query("forget_rejects"),
                [each.environment for each in segments],
                [each.key for each in segments],
                MOST_OF_SEGMENT,
            )
