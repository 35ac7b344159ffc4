"""Parts for faults that the real ones can't give on demand. Each is a real class and keeps its protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stores.base import Applied, SegmentRef
from stores.errors import BatchRejectedError, StoreUnavailableError
from stores.model import DeltaGroup, SegmentChange, SegmentKey
from tests.memory_store import MemoryStore


class RefusingStore(MemoryStore):
    """Rejects every batch that holds one of these context keys, as PostgreSQL does for data it can't take."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self._refused = set(refused)
        self.calls = 0

    async def apply(self, deltas: Sequence[tuple[int, DeltaGroup]]) -> Applied:
        self.calls += 1
        if any(self._refused.intersection(group.context_keys) for _, group in deltas):
            raise BatchRejectedError("22021")
        return await super().apply(deltas)


class FlakyStore(MemoryStore):
    """Is unavailable for so many calls of any kind, and then like any other."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self._failures = failures

    async def resolve(self, changes: Sequence[SegmentChange]) -> Mapping[SegmentKey, SegmentRef]:
        self._fail()
        return await super().resolve(changes)

    async def apply(self, deltas: Sequence[tuple[int, DeltaGroup]]) -> Applied:
        self._fail()
        return await super().apply(deltas)

    def _fail(self) -> None:
        if self._failures:
            self._failures -= 1
            raise StoreUnavailableError("PostgreSQL", "it was told to")
