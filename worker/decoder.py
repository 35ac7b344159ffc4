"""The decoder: puts what a record means into the open batch. Nothing is awaited here but the ids of new topics."""

from __future__ import annotations

from collections.abc import Sequence

from consumers.dead_letter import DeadLetter
from consumers.errors import Ignored, InvalidRecord, Reason
from consumers.feeds import Feed
from consumers.normalize import Normalized, Normalizer
from consumers.record import Origin, Record, origin_of
from stores.base import SegmentStore
from stores.model import OFFSET_BITS, Position
from worker.backoff import until_available
from worker.batch import Batch
from worker.dead_letter_guard import DeadLetterGuard
from worker.instruments import Instruments
from worker.skipped_environments import SkippedEnvironments


class TopicUnknownError(Exception):
    """The id of this topic must be learned from the store before its records can be versioned."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.topic = topic


class Decoder:
    """Normalizes records of all feeds into batches."""

    def __init__(
        self,
        *,
        feeds: Sequence[Feed],
        normalizer: Normalizer,
        store: SegmentStore,
        guard: DeadLetterGuard,
        instruments: Instruments,
    ) -> None:
        self._feeds = feeds
        self._normalizer = normalizer
        self._store = store
        self._guard = guard
        self._metrics, self._health = instruments
        self._skipped = SkippedEnvironments()
        self._feed_of: dict[str, Feed] = {}
        self._topic_ids: dict[str, int] = {}
        self._first_positions: dict[tuple[str, int], int] = {}

    @property
    def held_topics(self) -> set[str]:
        """Topics that are no longer read because they mostly yield dead letters."""
        return self._guard.held_topics

    async def learn(self, topic: str) -> None:
        """Asks the store for the topic's id, as long as it takes."""
        self._topic_ids[topic] = await until_available(self._health, "postgres", lambda: self._store.topic_id(topic))

    def decode(self, record: Record, batch: Batch, now: float) -> bool:
        """Adds one record to the batch. True when its topic is held from now on.

        Raises `TopicUnknownError`, and then the batch is as it was.
        """
        try:
            origin = self._origin(record) if record.headers else record
            position = self._position(origin.topic, origin.partition, origin.offset)
            normalized = self._normalizer.normalize(
                record, self._feed(record.topic), arrived_ms=origin.timestamp_ms, position=position
            )
        except InvalidRecord as exc:
            left = self._left_to_others(record, exc)
            if left is None:
                batch.add_dead_letter(DeadLetter(record, exc.reason, exc.detail), now)
                return self._guard.observe(record.topic, 1.0)
            normalized = left
        if normalized.ignored is Ignored.OTHER_ENVIRONMENT:
            self._skipped.note(normalized.environment or "")
        batch.add(record, normalized, now)
        rejects = normalized.rejects
        return self._guard.observe(record.topic, len(rejects) / max(1, normalized.members) if rejects else 0.0)

    def _left_to_others(self, record: Record, exc: InvalidRecord) -> Normalized | None:
        """Where it first arrived is looked at before anything else, so a wrong one may hide whose record it is."""
        skipped = self._normalizer.for_others(record) if exc.reason is Reason.ORIGIN_INVALID else None
        return Normalized([], [], 0, skipped.ignored, environment=skipped.environment) if skipped else None

    def _origin(self, record: Record) -> Origin:
        origin = origin_of(record)
        # Every topic that versions are made from gets one of few ids for ever, so a header can't name just any.
        if origin.topic != record.topic and not any(feed.carries(origin.topic) for feed in self._feeds):
            raise InvalidRecord(Reason.ORIGIN_INVALID, "the topic of its first arrival belongs to no feed")
        return origin

    def _feed(self, topic: str) -> Feed:
        feed = self._feed_of.get(topic)
        if feed is None:
            feed = self._feed_of[topic] = next(feed for feed in self._feeds if feed.carries(topic))
        return feed

    def _position(self, topic: str, partition: int, offset: int) -> int:
        """The packed position. What is the same for a whole partition is packed once."""
        first = self._first_positions.get((topic, partition))
        if first is None:
            topic_id = self._topic_ids.get(topic)
            if topic_id is None:
                raise TopicUnknownError(topic)
            first = self._first_positions[topic, partition] = Position(topic_id, partition, 0).pack()
        if offset >> OFFSET_BITS:
            return Position(self._topic_ids[topic], partition, offset).pack()  # raises, and says what does not fit
        return first | offset
