"""The open batch: what was decoded and waits to be written, and the policy that says when it is time.

Pure: the clock is an argument, nothing is awaited.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cached_property
from itertools import groupby
from operator import attrgetter

import msgspec

from consumers.dead_letter import DeadLetter
from consumers.errors import Ignored
from consumers.normalize import Normalized
from consumers.record import Record, TopicPartition
from stores.model import Clearing, DeltaGroup, SegmentChange
from stores.postgres.rejects import RejectedMember
from worker.reject_notes import reject_notes

MOST_NOTES = 2_000
"""For people. The dead letters have all of it."""
_TOPIC, _TIMESTAMP_MS, _PLACE = attrgetter("topic"), attrgetter("timestamp_ms"), attrgetter("topic", "partition")


class BatchPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A batch is due when it holds so many deltas, so many bytes of records, or a record that waited so long."""

    max_deltas: int = 20_000
    max_bytes: int = 16 << 20
    max_wait_s: float = 0.5

    def is_full(self, batch: Batch) -> bool:
        """Whether the batch should take no more."""
        most = self.max_deltas
        return batch.deltas >= most or len(batch.records) >= most or batch.bytes >= self.max_bytes

    def trigger(self, batch: Batch, now: float) -> str | None:
        """Which limit is reached: `count`, `bytes`, `age`, or None while there is room and time."""
        if self.is_full(batch):
            return "bytes" if batch.bytes >= self.max_bytes else "count"
        if batch.records and now - batch.opened_at >= self.max_wait_s:
            return "age"
        return None

    def wait_s(self, batch: Batch, now: float) -> float:
        """How long until age alone makes the batch due; the whole wait for one that is empty."""
        return max(0.0, self.max_wait_s - (now - batch.opened_at)) if batch.records else self.max_wait_s


class Batch:
    """Records that will be made durable together, with the next offsets that say so afterwards."""

    def __init__(self) -> None:
        self.opened_at = 0.0
        self.records: list[Record] = []
        self.deltas = 0
        self.bytes = 0
        self.groups: list[DeltaGroup] = []
        self.clearings: list[Clearing] = []
        self.sources: dict[int, Record] = {}
        """By position, the record of each group and clearing: should one fail later, it is a dead letter."""
        self.dead_letters: list[DeadLetter] = []
        self.reject_notes: list[RejectedMember] = []
        self.ignored: Counter[Ignored] = Counter()
        self.future_event_times = 0
        self.conflicts = 0

    @property
    def changes(self) -> list[SegmentChange]:
        """Everything that is for a segment."""
        return [*self.groups, *self.clearings]

    @property
    def next_offsets(self) -> dict[TopicPartition, int]:
        """Behind the last record of each partition."""
        return {TopicPartition(*place): record.offset + 1 for place, record in self._last.items()}

    @property
    def timestamps_ms(self) -> dict[TopicPartition, int]:
        """The record time of the last record of each partition."""
        return {TopicPartition(*place): record.timestamp_ms for place, record in self._last.items()}

    @property
    def arrivals(self) -> Mapping[str, Mapping[int, int]]:
        """By topic, how many records it has of each record time (ms)."""
        arrivals: dict[str, Counter[int]] = defaultdict(Counter)
        for topic, records in groupby(self.records, key=_TOPIC):
            arrivals[topic].update(map(_TIMESTAMP_MS, records))
        return arrivals

    def add(self, record: Record, normalized: Normalized, now: float) -> None:
        """Takes in what a record means. A record that means nothing still moves the offset."""
        self._take(record, now)
        if normalized.groups:
            self.sources[normalized.groups[0].version.position] = record
            for group in normalized.groups:
                self.groups.append(group)
                self.deltas += len(group.context_keys)
        if normalized.clearing is not None:
            self.sources[normalized.clearing.version.position] = record
            self.clearings.append(normalized.clearing)
        if normalized.rejects:
            self.dead_letters += rejected_members(record, normalized)
            if len(self.reject_notes) < MOST_NOTES:
                self.reject_notes += reject_notes(record, normalized)
        if normalized.ignored:
            self.ignored[normalized.ignored] += 1
        self.future_event_times += normalized.future_event_time
        self.conflicts += normalized.conflicts

    def add_dead_letter(self, letter: DeadLetter, now: float) -> None:
        """Takes in a record that can never become deltas."""
        self._take(letter.record, now)
        self.dead_letters.append(letter)

    def _take(self, record: Record, now: float) -> None:
        if not self.records:
            self.opened_at = now
        self.records.append(record)
        self.bytes += len(record.value or b"")

    @cached_property
    def _last(self) -> dict[tuple[str, int], Record]:
        """The last record of each partition. Asked only of a batch that takes in no more."""
        return dict(zip(map(_PLACE, self.records), self.records, strict=True))


def rejected_members(record: Record, normalized: Normalized) -> list[DeadLetter]:
    """One dead letter for each reason, with the places of the members that were rejected for it."""
    letters = []
    for reason in dict.fromkeys(reject.reason for reject in normalized.rejects):
        rejects = [reject for reject in normalized.rejects if reject.reason is reason]
        places = tuple(reject.place for reject in rejects if reject.place is not None)
        letters.append(DeadLetter(record, reason, rejects[0].detail, places or None))
    return letters
