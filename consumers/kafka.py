"""Records from Kafka: poll, pause, commit, and what a rebalance does to all three.

What aiokafka 0.14 does that must not surprise the pipeline is handled here, each at its place: see the comments that
name an issue of aio-libs/aiokafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord
from aiokafka import TopicPartition as ClientTopicPartition
from aiokafka.errors import (
    CommitFailedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    RecordTooLargeError,
)

from consumers.connection import KafkaConnection, all_partitions, why_unreachable
from consumers.errors import KafkaUnavailableError
from consumers.feeds import Feed
from consumers.group import TellingAssignor
from consumers.record import Record, TopicPartition

log = structlog.get_logger(__name__)

COMMIT_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 5.0
POLL_WAIT_MS = 200
FETCH_MAX_BYTES = 16 << 20
PARTITION_FETCH_BYTES = 1 << 20
LARGEST_PARTITION_FETCH_BYTES = 64 << 20
REJOIN_TIMEOUT_S = 180.0
"""Longer than any rebalance that goes well: several session timeouts of the default length."""


class MembershipLostError(Exception):
    """The client no longer reads and does not recover by itself: stop, so that a new process joins the group."""


class RebalanceListener(Protocol):
    """Who wants to know when partitions come and go. Neither call may raise."""

    async def partitions_revoked(self) -> None:
        """All partitions are about to be taken away; what is in flight may still be committed."""
        ...

    def partitions_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """These are ours now, from their committed offsets on."""
        ...


class KafkaConsumer:
    """Reads the topics of all feeds as one member of the consumer group."""

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        group_id: str,
        session_timeout_ms: int,
        feeds: Sequence[Feed],
        saying: bytes = b"",
    ) -> None:
        self._connection = connection
        self._feeds = feeds
        self._options = {
            "group_id": group_id,
            # The defaults lose records (latest, auto-commit) or members (10 s): operations.md 1.4.
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            "session_timeout_ms": session_timeout_ms,
            "heartbeat_interval_ms": min(3_000, session_timeout_ms // 5),
            "rebalance_timeout_ms": session_timeout_ms,
            "max_poll_interval_ms": max(300_000, session_timeout_ms),
            # Records of an aborted transaction never happened.
            "isolation_level": "read_committed",
            "fetch_max_bytes": FETCH_MAX_BYTES,
            "max_partition_fetch_bytes": PARTITION_FETCH_BYTES,
            "partition_assignment_strategy": (TellingAssignor(saying),),
        }
        self._getting: asyncio.Task[tuple[int, list[ConsumerRecord]]] | None = None
        self._paused: dict[TopicPartition, set[str]] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._ends: dict[ClientTopicPartition, int] = {}
        self._rejoining_since: float | None = None
        self._why: str | None = None
        """Why no broker answered when one was last asked. Most errors of the client don't say it."""
        self.generation = 0
        """Goes up with each rebalance. What was read under an older one must not be committed under this one."""

    async def start(self, listener: RebalanceListener) -> None:
        """Joins the group. Raises `KafkaUnavailableError` while no broker answers; it may then be called again."""
        client = AIOKafkaConsumer(**self._connection.options(), **self._options)
        try:
            await client.start()
        except KafkaError as exc:
            with contextlib.suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(client.stop(), STOP_TIMEOUT_S)
            if not exc.retriable and not isinstance(exc, KafkaConnectionError):
                raise
            raise KafkaUnavailableError(await why_unreachable(self._connection, exc)) from exc
        client.subscribe(**_subscription(self._feeds), listener=_Rebalances(self, listener))
        self._client = client

    async def stop(self) -> None:
        """Leaves the group, so that others take over at once. Never takes longer than `STOP_TIMEOUT_S`."""
        if self._getting:
            self._getting.cancel()
        try:
            # Issue 1101: without brokers, stop() does not return.
            await asyncio.wait_for(self._client.stop(), STOP_TIMEOUT_S)
        except (TimeoutError, KafkaError) as exc:
            log.warning("consumer_stop_abandoned", error=type(exc).__name__)

    async def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        """The next records of the partitions that are not paused, at most so many, after at most so long.

        To be called all the time, also with everything paused and nothing assigned: errors of the coordinator surface
        only here, and a member that stops polling never rejoins (issue 1187). Raises `KafkaUnavailableError`.
        """
        if (fetching := self._client._fetcher.error_future).done():  # noqa: SLF001
            # Issues 847 and 1037: the client's own task may end after a lag of the loop, and nothing is read any more.
            fetching.result()
            raise MembershipLostError("the client's fetching has ended")
        # getmany has a timeout that a rebalance does not keep, so it goes on beside us and we look in.
        if self._getting is None:
            self._getting = asyncio.create_task(self._get(max_records), name="getmany")
        done, _ = await asyncio.wait({self._getting}, timeout=timeout_s)
        if not done:
            return []
        getting, self._getting = self._getting, None
        try:
            generation, records = getting.result()
        except RecordTooLargeError as exc:
            self._read_again_with_larger_fetches(exc)
            return []
        except CorruptRecordException:
            # Issue 321: a broken checksum comes back for ever at the same offset, and what the same call had already
            # taken from other partitions is gone with it. A new process reads all of it again from the checkpoint:
            # damage on the way is then gone, damage on disk is for a person, since skipping would lose records.
            raise
        except KafkaError as exc:
            if not exc.retriable:
                raise
            raise KafkaUnavailableError(self._why or type(exc).__name__) from exc
        # Records that were handed out before a rebalance are read again after it: taking them too would commit past
        # the ones that the rebalance made us drop.
        return [_record(record) for record in records] if generation == self.generation else []

    async def _get(self, max_records: int) -> tuple[int, list[ConsumerRecord]]:
        by_partition = await self._client.getmany(timeout_ms=POLL_WAIT_MS, max_records=max_records)
        # No await between these two, so the generation is the one under which the records were handed out.
        return self.generation, [record for records in by_partition.values() for record in records]

    async def commit(self, next_offsets: Mapping[TopicPartition, int]) -> bool:
        """Commits explicit next offsets of partitions that are still ours; False where a rebalance was faster.

        Raises `KafkaUnavailableError` when no broker acknowledges in time; the offsets may be committed again later.
        """
        owned = self.assignment()
        offsets = {ClientTopicPartition(*tp): offset for tp, offset in next_offsets.items() if tp in owned}
        if not offsets:
            return False
        try:
            # Issues 1095 and 1101: commit() goes on for ever while brokers or the topic are gone.
            await asyncio.wait_for(self._client.commit(offsets), COMMIT_TIMEOUT_S)
        except (CommitFailedError, IllegalStateError):
            return False
        except TimeoutError as exc:
            raise KafkaUnavailableError(self._why or "commit timed out") from exc
        except KafkaError as exc:
            raise KafkaUnavailableError(self._why or type(exc).__name__) from exc
        self._committed |= next_offsets
        return True

    def assignment(self) -> set[TopicPartition]:
        """The partitions that are ours at this moment."""
        return {TopicPartition(*tp) for tp in self._client.assignment()}

    def reads_everything(self) -> bool:
        """Whether no other member of the group has a partition of our topics, as far as is known here."""
        counts = (len(self._client.partitions_for_topic(topic) or ()) for topic in self._client.subscription())
        return sum(counts) <= len(self._client.assignment())

    def pause(self, partitions: Iterable[TopicPartition], reason: str) -> None:
        """Stops reading these until `resume` is called for the same reason, also across rebalances."""
        for tp in partitions:
            self._paused.setdefault(tp, set()).add(reason)
        self.reapply_pauses()

    def resume(self, reason: str) -> None:
        """Takes this reason away; partitions that are paused for no other are read again."""
        free = []
        for tp, reasons in list(self._paused.items()):
            reasons.discard(reason)
            if not reasons:
                del self._paused[tp]
                free.append(tp)
        assigned = self._client.assignment()
        self._client.resume(*(ClientTopicPartition(*tp) for tp in free if tp in assigned))

    def begin_generation(self) -> None:
        """All partitions are given out anew: what is known of them no longer holds."""
        self.generation += 1
        self._committed.clear()

    def reapply_pauses(self) -> None:
        """Pauses again what was paused: aiokafka forgets it in every rebalance."""
        assigned = self._client.assignment()
        self._client.pause(*(ClientTopicPartition(*tp) for tp in self._paused if tp in assigned))

    def paused(self) -> dict[TopicPartition, set[str]]:
        """The assigned partitions that are paused, and why."""
        owned = self.assignment()
        return {tp: reasons for tp, reasons in self._paused.items() if tp in owned}

    def positions(self) -> dict[TopicPartition, int]:
        """Behind everything that `poll` has returned: the next offset of each assigned partition whose own is known.

        Also behind offsets that hold no record. Nothing is told where records, or an error, wait that `poll` has not
        returned yet: the position may be beyond them.
        """
        if self._getting is not None and self._getting.done():
            return {}
        if self._client._subscription.reassignment_in_progress:  # noqa: SLF001
            # The old positions stand until the new assignment, and what was read before them was dropped.
            return {}
        waiting = self._client._fetcher._records  # noqa: SLF001 - there is no public way to see it
        known = ((tp, self._position(tp)) for tp in self._client.assignment() if tp not in waiting)
        return {TopicPartition(*tp): position for tp, position in known if position is not None}

    def highwaters(self) -> dict[TopicPartition, tuple[int, int] | None]:
        """Of every partition of our topics: when its end was last learned (unix ms), and where it was then.

        None for those that others read, for those that are paused, and while nothing was fetched yet.
        """
        known: dict[TopicPartition, tuple[int, int] | None] = {
            TopicPartition(topic, partition): None
            for topic in self._client.subscription()
            for partition in self._client.partitions_for_topic(topic) or ()
        }
        for tp in self._client.assignment():
            place, highwater = TopicPartition(*tp), self._client.highwater(tp)
            if highwater is not None and place not in self._paused:
                known[place] = self._client.last_poll_timestamp(tp), highwater
        return known

    def lag_records(self) -> dict[TopicPartition, int]:
        """How many records each assigned partition holds beyond what was read, as far as its end is known."""
        lags = {}
        for tp in self._client.assignment():
            # What was read of a partition that is held was dropped again: it waits from its checkpoint on.
            held = TopicPartition(*tp) in self._paused
            position = self._position(tp)
            position = self._committed.get(TopicPartition(*tp), position) if held else position
            ends = [end for end in (self._client.highwater(tp), self._ends.get(tp)) if end is not None]
            if ends and position is not None:
                lags[TopicPartition(*tp)] = max(0, max(ends) - position)
        return lags

    async def learn_ends(self) -> None:
        """Asks where the assigned partitions end: fetches tell it too, but nothing is fetched of what is paused.

        Raises `KafkaUnavailableError`.
        """
        assigned = list(self._client.assignment())
        try:
            ends = await asyncio.wait_for(self._client.end_offsets(assigned), ASK_TIMEOUT_S) if assigned else {}
        except (TimeoutError, KafkaError) as exc:
            raise KafkaUnavailableError(type(exc).__name__) from exc
        self._ends = ends

    async def topics(self) -> set[str]:
        """The names of all topics; also the proof that a broker answers. Raises `KafkaUnavailableError`."""
        self._connection.renew(self._client._client)  # noqa: SLF001 - there is no public way to it
        try:
            found = set(await asyncio.wait_for(self._client.topics(), ASK_TIMEOUT_S))
        except (TimeoutError, KafkaError) as exc:
            self._why = await why_unreachable(self._connection, exc)
            raise KafkaUnavailableError(self._why) from exc
        self._why = None
        return found

    async def require_membership(self) -> None:
        """Raises `MembershipLostError` when a rebalance does not end although the brokers answer; to be called often.

        Issue 1154: after a broker's restart the client may wait for ever for its group. A new process joins.
        """
        if not self._client._subscription.reassignment_in_progress:  # noqa: SLF001
            self._rejoining_since = None
            return
        self._rejoining_since = self._rejoining_since or time.monotonic()
        if time.monotonic() - self._rejoining_since < REJOIN_TIMEOUT_S:
            return
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await all_partitions(self._connection)
        except (TimeoutError, KafkaError):
            self._rejoining_since = None  # the brokers are away: that is to be waited for
        else:
            raise MembershipLostError(f"no assignment {REJOIN_TIMEOUT_S:.0f} s after a rebalance began")

    async def offsets_to_read(self) -> dict[TopicPartition, int]:
        """For each partition of each feed that holds records now: the offset behind its last one."""
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                return await self._offsets_to_read()
        except (TimeoutError, KafkaError) as exc:
            raise KafkaUnavailableError(type(exc).__name__) from exc

    async def _offsets_to_read(self) -> dict[TopicPartition, int]:
        by_topic = await all_partitions(self._connection)
        partitions = [
            ClientTopicPartition(*tp)
            for topic, partitions in by_topic.items()
            if any(feed.carries(topic) for feed in self._feeds)
            for tp in partitions
        ]
        first, last = await asyncio.gather(
            self._client.beginning_offsets(partitions), self._client.end_offsets(partitions)
        )
        return {TopicPartition(*tp): last[tp] for tp in partitions if last[tp] > first[tp]}

    async def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's committed next offsets; 0 for a partition that has none."""
        offsets = {}
        for tp in partitions:
            try:
                offset = await asyncio.wait_for(self._client.committed(ClientTopicPartition(*tp)), COMMIT_TIMEOUT_S)
            except (TimeoutError, KafkaError) as exc:
                raise KafkaUnavailableError(type(exc).__name__) from exc
            offsets[tp] = offset or 0
        return offsets

    def _position(self, tp: ClientTopicPartition) -> int | None:
        # aiokafka's own position() waits, and what it waits for may be taken away meanwhile.
        state = self._client._subscription.subscription.assignment.state_value(tp)  # noqa: SLF001
        return state._position if state is not None else None  # noqa: SLF001

    def _read_again_with_larger_fetches(self, exc: RecordTooLargeError) -> None:
        # Issue 1173: aiokafka has moved past the record that it could not deliver. Go back and fetch more at once.
        _, tp, offset, limit, *_ = exc.args
        fetcher = self._client._fetcher  # noqa: SLF001 - there is no public way to change it
        fetcher._max_partition_fetch_bytes = min(2 * limit, LARGEST_PARTITION_FETCH_BYTES)  # noqa: SLF001
        # After a rebalance the error may be an old one, and its offset beyond what is to be read again.
        if tp in self._client.assignment() and self._position(tp) == offset + 1:
            self._client.seek(tp, offset)
        log.warning("record_larger_than_fetch", topic=tp.topic, partition=tp.partition, offset=offset, limit=limit)


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    def __init__(self, consumer: KafkaConsumer, listener: RebalanceListener) -> None:
        self._consumer = consumer
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Iterable[ClientTopicPartition]) -> None:
        # Assignment is eager: all partitions go, and what was read but not committed is read again. No lock is shared
        # with the poll loop (issue 335): the number alone tells it that what it holds is stale.
        self._consumer.begin_generation()
        if revoked:
            await self._listener.partitions_revoked()

    async def on_partitions_assigned(self, assigned: Iterable[ClientTopicPartition]) -> None:
        self._consumer.reapply_pauses()
        self._listener.partitions_assigned([TopicPartition(*tp) for tp in assigned])


def _subscription(feeds: Sequence[Feed]) -> dict[str, Any]:
    if not any(feed.topic_pattern for feed in feeds):
        return {"topics": sorted({topic for feed in feeds for topic in feed.topics})}
    names = [re.escape(topic) for feed in feeds for topic in feed.topics]
    patterns = [feed.topic_pattern for feed in feeds if feed.topic_pattern]
    return {"pattern": "|".join(f"(?:{pattern})$" for pattern in names + patterns)}


def _record(record: ConsumerRecord) -> Record:
    return Record(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )
