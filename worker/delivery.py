"""Delivery: everything of a batch becomes durable, as memberships or as dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from consumers.dead_letter import DeadLetter, DeadLetterProducer
from consumers.errors import Reason
from stores.model import DeltaGroup
from worker.backoff import until_available
from worker.batch import Batch
from worker.dead_letter_guard import DeadLetterGuard
from worker.instruments import Instruments
from worker.segments import RefusedDeltas, SegmentResolver
from worker.writer import BatchWriter


class Delivery:
    """Returns when nothing of a batch can be lost any more, however long the store or Kafka take."""

    def __init__(
        self,
        *,
        segments: SegmentResolver,
        writer: BatchWriter,
        dead_letters: DeadLetterProducer,
        guard: DeadLetterGuard,
        instruments: Instruments,
    ) -> None:
        self._segments = segments
        self._writer = writer
        self._dead_letters = dead_letters
        self._guard = guard
        self._metrics, self._health = instruments

    async def deliver(self, batch: Batch) -> list[str]:
        """Resolves the segments, writes the deltas, and sends what was rejected on the way to the dead letters.

        Returns the topics that are held from now on because of what was rejected here.
        """
        rejected: list[DeadLetter] = []
        if batch.groups:
            with self._metrics.stage("resolve"):
                resolved = await until_available(self._health, "postgres", lambda: self._segments.resolve(batch.groups))
            with self._metrics.stage("write"):
                written = await self._writer.write(resolved.deltas)
            self._metrics.deltas_stored(resolved.deltas, written.stale)
            rejected += [_mismatch(batch, group) for group in resolved.mismatched]
            rejected += _refusals(batch, (*resolved.refused, *written.refused))
        if letters := [*batch.dead_letters, *rejected]:
            with self._metrics.stage("dead_letter"):
                await until_available(self._health, "dead_letter_topic", lambda: self._dead_letters.send(letters))
            self._metrics.dead_letters_sent(letters)
        return self._observe(batch, rejected) if rejected else []

    def _observe(self, batch: Batch, rejected: Sequence[DeadLetter]) -> list[str]:
        """Tells the guard what the decoder could not know: what share of each record's deltas was rejected here."""
        deltas = Counter[int]()
        for group in batch.groups:
            deltas[id(batch.sources[group.version.position])] += len(group)
        shares: dict[str, float] = {}
        for letter in rejected:
            topic, members = letter.record.topic, len(letter.members or ())
            shares[topic] = shares.get(topic, 0.0) + members / deltas[id(letter.record)]
        records = Counter(record.topic for record in batch.records)
        return [
            topic for topic, share in shares.items() if self._guard.observe_later(topic, share, among=records[topic])
        ]


def _mismatch(batch: Batch, group: DeltaGroup) -> DeadLetter:
    detail = f"{group.segment.key} holds contexts of another kind than {group.context_kind}"
    return _rejected(batch, group, Reason.CONTEXT_KIND_MISMATCH, detail)


def _refusals(batch: Batch, refused: Sequence[RefusedDeltas]) -> list[DeadLetter]:
    """One letter for each record and SQLSTATE: a thousand members that are refused must not be a thousand copies."""
    places: dict[tuple[int, str], list[int]] = {}
    for group, sqlstate in refused:
        places.setdefault((group.version.position, sqlstate), []).extend(group.places)
    return [
        DeadLetter(
            batch.sources[position],
            Reason.STORE_REJECTED,
            f"PostgreSQL gave SQLSTATE {sqlstate}",
            tuple(sorted(members)),
        )
        for (position, sqlstate), members in places.items()
    ]


def _rejected(batch: Batch, group: DeltaGroup, reason: Reason, detail: str) -> DeadLetter:
    return DeadLetter(batch.sources[group.version.position], reason, detail, tuple(group.places))
