"""The flow, once and forwards: poll -> decode -> batch -> deliver -> commit.

    Kafka ──poll──► records ──decode──► open batch ──deliver──┬─ deltas ───► writers ──► PostgreSQL ─┐
                                                              └─ rejected ─► dead letter topic ──────┴─► commit

One batch is delivered while the next is decoded. Nothing is committed that is not durable: an offset moves only when
every delta of its record is in the store, or the record is in the dead letter topic.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

import structlog

from consumers.errors import KafkaUnavailableError
from consumers.kafka import KafkaConsumer
from consumers.record import Record, TopicPartition
from worker.batch import Batch, BatchPolicy
from worker.checkpoint import Checkpoint
from worker.decoder import Decoder, TopicUnknownError
from worker.delivery import Delivery
from worker.instruments import Instruments
from worker.metric_definitions import BACK_PRESSURE, DEAD_LETTERS

log = structlog.get_logger(__name__)

POLL_RECORDS = 2_000
PATIENCE_S = 0.25
"""So long a full batch waits for the one before it until consumption is paused. A pause costs what was prefetched."""
IDLE_S = 1.0
REVOKE_FLUSH_S = 5.0
"""So long a rebalance waits for the batch in flight, so that its records need not be read again."""
SLICE_S = 0.003
"""After so long decoding gives way to what else runs in the event loop: writes, and the heartbeats of the group."""

T = TypeVar("T")


class DrainAbandonedError(Exception):
    """The time to stop was over before the last batch was durable. It will be read again: nothing is lost."""


class Pipeline:
    """Turns the records of all feeds into durable memberships until it is told to stop."""

    def __init__(
        self,
        *,
        consumer: KafkaConsumer,
        decoder: Decoder,
        delivery: Delivery,
        policy: BatchPolicy,
        instruments: Instruments,
    ) -> None:
        self._consumer = consumer
        self._decoder = decoder
        self._delivery = delivery
        self._policy = policy
        self._metrics, self._health = instruments
        self._backlog: deque[Record] = deque()
        self._batch = Batch()
        self._flushing: asyncio.Task[None] | None = None
        self._checkpoint = Checkpoint()
        self._settled_at = 0.0
        self._stop_deadline: float | None = None
        self.running = False
        """Whether there may be something that a stop has to finish."""

    @property
    def held_topics(self) -> AbstractSet[str]:
        """The topics that are no longer read because they mostly yield dead letters; it changes by itself."""
        return self._decoder.held_topics

    async def run(self) -> None:
        """Runs until `stop`, then makes durable what is in flight. Kafka and the store may fail and come back."""
        self.running = True
        try:
            while self._stop_deadline is None:
                await self._cycle()
            await self._drain()
        except DrainAbandonedError:
            log.warning("drain_abandoned", records=len(self._batch.records))
        finally:
            if self._flushing:
                self._flushing.cancel()

    def stop(self, *, within_s: float) -> None:
        """Asks `run` to end: no record is read any more, what was decoded is made durable and committed."""
        if self._stop_deadline is None:
            self._stop_deadline = time.monotonic() + within_s

    async def _cycle(self) -> None:
        self._health.progress()
        self._reap_flush()
        if not self._backlog:
            self._backlog.extend(await self._poll(self._poll_wait_s()))
        if self._backlog:
            with self._metrics.stage("decode"):
                await self._decode_backlog()
        if trigger := self._policy.trigger(self._batch, time.monotonic()):
            await self._begin_flush(trigger)
        elif self._is_idle():
            await self._settle()

    async def _poll(self, timeout_s: float) -> Sequence[Record]:
        with self._metrics.stage("poll"):
            try:
                records = await self._consumer.poll(max_records=POLL_RECORDS, timeout_s=timeout_s)
            except KafkaUnavailableError as exc:
                self._health.check_failed("kafka", exc.cause)
                log.warning("kafka_awaited", doing="poll", cause=exc.cause)
                await asyncio.sleep(min(timeout_s, PATIENCE_S))
                return []
        if records:
            self._health.check_passed("kafka")
        if self._decoder.held_topics:
            # What was fetched before its topic was held stays unread, like all that follows it.
            return [record for record in records if record.topic not in self._decoder.held_topics]
        return records

    async def _decode_backlog(self) -> None:
        """Moves records into the open batch until that is due or none is left. A rebalance may empty both meanwhile."""
        while self._backlog and not self._policy.is_full(self._batch):
            try:
                self._decode_slice()
            except TopicUnknownError as exc:
                await self._while_polling(asyncio.ensure_future(self._decoder.learn(exc.topic)))
            await asyncio.sleep(0)

    def _decode_slice(self) -> None:
        backlog, batch, now = self._backlog, self._batch, time.monotonic()
        slice_end = now + SLICE_S
        while backlog and now < slice_end and not self._policy.is_full(batch):
            tripped = self._decoder.decode(backlog[0], batch, now)
            record = backlog.popleft()
            if tripped:
                self._hold(record.topic)
                return
            now = time.monotonic()

    async def _begin_flush(self, trigger: str) -> None:
        """Hands the open batch over as soon as the one before it is done."""
        waited = self._flushing is not None
        if self._flushing:
            await self._while_polling(self._flushing)
        batch, self._batch = self._batch, Batch()  # taken only now: a rebalance may have emptied it meanwhile
        if batch.records:
            self._metrics.batch_flushed(trigger, batch.deltas)
            self._flushing = asyncio.create_task(
                # Two writes at once cost more in all: worth it where the store holds us up, and nobody else writes.
                self._flush(batch, self._checkpoint, in_two=waited and self._consumer.reads_everything()),
                name="flush",
            )

    async def _flush(self, batch: Batch, checkpoint: Checkpoint, *, in_two: bool) -> None:
        """Makes one batch durable, then says so to Kafka; never the reverse."""
        for topic in await self._delivery.deliver(batch, in_two=in_two):
            self._hold(topic)
        self._metrics.batch_stored(batch)
        checkpoint.advance(batch.next_offsets)
        await self._commit(checkpoint)

    async def _commit(self, checkpoint: Checkpoint) -> None:
        """Commits what is safe. Where Kafka does not answer, the next commit says it again."""
        pending = checkpoint.pending()
        if not pending or checkpoint is not self._checkpoint:  # a rebalance came in between: these are read again
            return
        with self._metrics.stage("commit"):
            try:
                committed = await self._consumer.commit(pending)
            except KafkaUnavailableError as exc:
                outcome = "unavailable"
                self._health.check_failed("kafka", exc.cause)
                log.warning("kafka_awaited", doing="commit", cause=exc.cause)
            else:
                outcome = "committed" if committed else "rebalanced"
                if committed:
                    checkpoint.committed(pending)
                    self._health.check_passed("kafka")
        self._metrics.commits_total.labels(outcome).inc()

    async def _while_polling(self, work: asyncio.Future[T]) -> T:
        """Waits for work of any length without losing the membership in the group: all is paused, but polled.

        Raises `DrainAbandonedError` when the time to stop is over.
        """
        while not work.done():
            self._health.progress()
            done, _ = await asyncio.wait({work}, timeout=PATIENCE_S)
            if done:
                break
            if self._stop_deadline is not None and time.monotonic() > self._stop_deadline:
                work.cancel()
                raise DrainAbandonedError
            self._consumer.pause(self._consumer.assignment(), BACK_PRESSURE)
            # What was being fetched when we paused may still come.
            self._backlog.extend(await self._poll(0))
        self._consumer.resume(BACK_PRESSURE)
        return work.result()

    async def _drain(self) -> None:
        """The end of the flow, in its order: the batch in flight, then the open one. The rest is read again."""
        log.info("drain_started", records=len(self._batch.records), deltas=self._batch.deltas)
        await self._begin_flush("drain")
        if self._flushing:
            await self._while_polling(self._flushing)
        log.info("drain_finished")

    def stored_offsets(self) -> dict[TopicPartition, int]:
        """Of each assigned partition, as far as is known, the next offset behind everything that is durable."""
        return self._consumer.positions() if self._is_idle() else self._checkpoint.safe()

    def _reap_flush(self) -> None:
        """Lets an error of a finished flush end the process; what may pass later never comes here."""
        if self._flushing and self._flushing.done():
            self._flushing.result()
            self._flushing = None

    async def _settle(self) -> None:
        """With nothing in flight: commits what Kafka could not take before, and moves past offsets without records."""
        if time.monotonic() - self._settled_at < IDLE_S:
            return
        self._settled_at = time.monotonic()
        # Transaction markers and compacted records have offsets, but nobody is ever given them. A held topic is left
        # where it is: behind its checkpoint there are records that nobody has taken care of.
        positions = self._consumer.positions()
        self._checkpoint.advance(
            {tp: offset for tp, offset in positions.items() if tp.topic not in self._decoder.held_topics}
        )
        await self._commit(self._checkpoint)

    def _is_idle(self) -> bool:
        return not self._backlog and not self._batch.records and self._flushing is None

    def _poll_wait_s(self) -> float:
        return min(self._policy.wait_s(self._batch, time.monotonic()), PATIENCE_S)

    def _hold(self, topic: str) -> None:
        """Stops reading a topic that mostly yields dead letters, until the worker is started again by a person."""
        log.error("topic_held", topic=topic, reason="the share of dead letters passed dead_letters.max_ratio")
        self._backlog = deque(record for record in self._backlog if record.topic != topic)
        self._apply_holds()

    def _apply_holds(self) -> None:
        held = {tp for tp in self._consumer.assignment() if tp.topic in self._decoder.held_topics}
        self._consumer.pause(held, DEAD_LETTERS)

    async def partitions_revoked(self) -> None:
        """Gives the batch in flight a moment to be committed, and drops what is not in flight: it is read again."""
        self._backlog.clear()
        self._batch = Batch()
        if self._flushing:
            await asyncio.wait({self._flushing}, timeout=REVOKE_FLUSH_S)
        self._checkpoint = Checkpoint()

    def partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Pauses are applied again by the consumer, holds of topics here, since new partitions may belong to them."""
        log.info("partitions_assigned", count=len(partitions))
        self._apply_holds()
        self._metrics.rebalances_total.inc()
        self._health.check_passed("kafka")
        self._health.check_passed("assignment")
