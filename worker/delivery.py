"""Delivery: everything of a batch becomes durable, as memberships or as dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import structlog

from consumers.dead_letter import DeadLetter, DeadLetterProducer
from consumers.errors import Reason
from stores.errors import BatchRejectedError
from stores.model import DeltaGroup, SegmentChange
from stores.postgres.rejects import RejectedMember, RejectIndex
from worker.backoff import until_available
from worker.batch import MOST_NOTES, Batch
from worker.dead_letter_guard import DeadLetterGuard
from worker.instruments import Instruments
from worker.reject_notes import notes_of_refused
from worker.segments import Refused, Resolved, SegmentResolver
from worker.writer import BatchWriter

log = structlog.get_logger(__name__)


class Delivery:
    """Returns when nothing of a batch can be lost any more, however long the store or Kafka take."""

    def __init__(  # noqa: PLR0913 - all that a batch passes through
        self,
        *,
        segments: SegmentResolver,
        writer: BatchWriter,
        dead_letters: DeadLetterProducer,
        rejects: RejectIndex,
        guard: DeadLetterGuard,
        instruments: Instruments,
    ) -> None:
        self._segments = segments
        self._writer = writer
        self._dead_letters = dead_letters
        self._rejects = rejects
        self._guard = guard
        self._metrics, self._health = instruments

    async def deliver(self, batch: Batch, *, in_two: bool) -> list[str]:
        """Resolves the segments, writes the deltas, and sends what was rejected on the way to the dead letters.

        With `in_two`, a context kind that dominates is written by two tasks.

        Returns the topics that are held from now on because of what was rejected here.
        """
        rejected: list[DeadLetter] = []
        notes = list(batch.reject_notes)
        if changes := batch.changes:
            with self._metrics.stage("resolve"):
                resolved = await until_available(self._health, "postgres", lambda: self._segments.resolve(changes))
            with self._metrics.stage("write"):
                refused = [*resolved.refused, *await self._write(resolved, in_two=in_two)]
            rejected += _mismatches(batch, resolved.mismatched)
            rejected += _refusals(batch, refused)
            notes += islice(_notes(resolved.mismatched, refused), MOST_NOTES)
        if notes:
            await self._note(notes)
        if letters := [*batch.dead_letters, *rejected]:
            with self._metrics.stage("dead_letter"):
                await until_available(self._health, "dead_letter_topic", lambda: self._dead_letters.send(letters))
            self._metrics.dead_letters_sent(letters)
        return self._observe(batch, rejected) if rejected else []

    async def _note(self, rejects: Sequence[RejectedMember]) -> None:
        """Into the index for people. The dead letters have all of it, so what the index refuses holds nobody up."""
        try:
            await until_available(self._health, "postgres", lambda: self._rejects.note(rejects))
        except BatchRejectedError as exc:
            log.warning("reject_notes_refused", notes=len(rejects), sqlstate=exc.sqlstate)

    async def _write(self, resolved: Resolved, *, in_two: bool) -> list[Refused]:
        """Deltas first, and then what clears a segment, since that must not come before what its record names."""
        written = await self._writer.write(resolved.deltas, in_two=in_two)
        self._metrics.deltas_stored(resolved.deltas, written.stale)
        # A page of which a member was refused is not all there.
        incomplete = {refused.change.version.position for refused in (*resolved.refused, *written.refused)}
        clearings = [each for each in resolved.clearings if each[1].version.position not in incomplete]
        refused = await self._writer.clear(clearings)
        not_cleared = {each.change for each in refused}
        self._metrics.clearings_stored(clearing for _, clearing in clearings if clearing not in not_cleared)
        return [*written.refused, *refused]

    def _observe(self, batch: Batch, rejected: Sequence[DeadLetter]) -> list[str]:
        """Tells the guard what the decoder could not know: what share of each record's deltas was rejected here."""
        deltas = Counter[int]()
        for change in batch.changes:
            deltas[id(batch.sources[change.version.position])] += len(change)
        shares: dict[str, float] = {}
        for letter in rejected:
            topic, members = letter.record.topic, len(letter.members) if letter.members else 1
            shares[topic] = shares.get(topic, 0.0) + members / deltas[id(letter.record)]
        records = Counter(record.topic for record in batch.records)
        return [
            topic for topic, share in shares.items() if self._guard.observe_later(topic, share, among=records[topic])
        ]


def _mismatches(batch: Batch, mismatched: Sequence[SegmentChange]) -> list[DeadLetter]:
    """One letter for each record, whatever it does to the segment."""
    by_record: dict[int, list[SegmentChange]] = {}
    for change in mismatched:
        by_record.setdefault(change.version.position, []).append(change)
    return [
        DeadLetter(
            batch.sources[position],
            Reason.CONTEXT_KIND_MISMATCH,
            _mismatch(changes[0]),
            tuple(sorted(place for change in changes for place in _places(change))) or None,
        )
        for position, changes in by_record.items()
    ]


def _refusals(batch: Batch, refused: Sequence[Refused]) -> list[DeadLetter]:
    """One letter for each record and SQLSTATE: a thousand members that are refused must not be a thousand copies."""
    places: dict[tuple[int, str], list[int]] = {}
    for change, sqlstate in refused:
        places.setdefault((change.version.position, sqlstate), []).extend(_places(change))
    return [
        DeadLetter(
            batch.sources[position],
            Reason.STORE_REJECTED,
            _refusal(sqlstate),
            tuple(sorted(members)) or None,
        )
        for (position, sqlstate), members in places.items()
    ]


def _notes(mismatched: Sequence[SegmentChange], refused: Sequence[Refused]) -> Iterator[RejectedMember]:
    """The same, for the index for people."""
    for change in mismatched:
        yield from notes_of_refused(change, Reason.CONTEXT_KIND_MISMATCH, _mismatch(change))
    for change, sqlstate in refused:
        yield from notes_of_refused(change, Reason.STORE_REJECTED, _refusal(sqlstate))


def _mismatch(change: SegmentChange) -> str:
    return f"{change.segment.key} holds contexts of another kind than {change.context_kind}"


def _refusal(sqlstate: str) -> str:
    return f"PostgreSQL gave SQLSTATE {sqlstate}"


def _places(change: SegmentChange) -> tuple[int, ...]:
    """The members that it is about; none where it is about all of the record."""
    return tuple(change.places) if isinstance(change, DeltaGroup) else ()
