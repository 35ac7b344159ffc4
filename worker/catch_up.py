"""`--until-caught-up`: when everything that the feeds held at the start is durable, the work is done."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet

import structlog

from consumers.errors import KafkaUnavailableError
from consumers.kafka import KafkaConsumer
from consumers.record import TopicPartition
from worker.backoff import until_available
from worker.dead_letter_guard import TopicHeldError
from worker.health import Health

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.5


async def wait_until_caught_up(consumer: KafkaConsumer, held_topics: AbstractSet[str], health: Health) -> None:
    """Returns when the group has committed every partition of every feed up to the end that it had at the call.

    Other members of the group may have done a part of it; of one that was killed, its session has to end first.
    Raises `TopicHeldError` where the guard on dead letters keeps it from the end.
    """
    ends = await until_available(health, "kafka", consumer.offsets_to_read)
    behind = dict(ends)
    log.info("catch_up_started", partitions=len(ends))
    while behind:
        if held := sorted({tp.topic for tp in behind} & held_topics):
            raise TopicHeldError(
                f"{', '.join(held)} is held, as most of its records were rejected: look at "
                "`cohort-sync dead-letters list`, mend the producer or the feed, and run again"
            )
        await asyncio.sleep(LOOK_EVERY_S)
        behind = await _still_behind(consumer, behind)
    log.info("catch_up_finished", partitions=len(ends))


async def _still_behind(consumer: KafkaConsumer, ends: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
    try:
        committed = await consumer.committed(ends)
    except KafkaUnavailableError:
        return ends
    return {tp: end for tp, end in ends.items() if committed[tp] < end}
