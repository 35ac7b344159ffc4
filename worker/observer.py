"""What is measured beside the flow: lag, pauses, and whether the store answers while nothing is written."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress

from consumers.errors import KafkaUnavailableError
from consumers.kafka import KafkaConsumer
from consumers.record import TopicPartition
from stores.errors import StoreError
from stores.postgres.writing import PostgresStore
from worker.backoff import ask_store
from worker.ingestion import Ingestion
from worker.instruments import Instruments

OBSERVE_EVERY_S = 1.0
ASK_EVERY = 5
"""Observations between two questions to the store and to Kafka."""


async def observe_kafka(consumer: KafkaConsumer, instruments: Instruments, needed_topics: AbstractSet[str]) -> None:
    """Keeps its gauges and checks up to date. Ends only with an error that a new process would not have."""
    metrics, health = instruments
    round_number = 0
    while True:
        await consumer.require_membership()
        if round_number % ASK_EVERY == 0:
            await _ask_kafka(consumer, instruments, needed_topics)
        metrics.set_lags(consumer.lag_records())
        metrics.assigned_partitions.set(len(consumer.assignment()))
        paused = consumer.paused()
        metrics.set_paused(Counter(reason for reasons in paused.values() for reason in reasons))
        health.tell("paused_partitions", {f"{tp.topic}:{tp.partition}": sorted(why) for tp, why in paused.items()})
        round_number += 1
        await asyncio.sleep(OBSERVE_EVERY_S)


async def observe_store(
    store: PostgresStore,
    consumer: KafkaConsumer,
    instruments: Instruments,
    stored_offsets: Callable[[], Mapping[TopicPartition, int]],
) -> None:
    """The same for the store, apart: one that is frozen must not hide what happens in Kafka meanwhile."""
    ingestion = Ingestion()
    round_number = 0
    while True:
        with suppress(StoreError):  # told below, and the next round says it again
            told = ingestion.stored_up_to(consumer.highwaters(), stored_offsets())
            await store.note_ingestion([(*place, until) for place, until in told.items()])
        if round_number % ASK_EVERY == 0:
            await _ask_store(store, instruments)
        round_number += 1
        await asyncio.sleep(OBSERVE_EVERY_S)


async def _ask_store(store: PostgresStore, instruments: Instruments) -> None:
    metrics, health = instruments
    facts = await ask_store(health, store.facts)
    if facts is not None:
        metrics.segments.set(facts.segments)
        metrics.store_horizon_age_seconds.set(facts.horizon_age_s)
        metrics.open_replace_sessions.set(facts.open_sessions)
        metrics.oldest_open_replace_session_seconds.set(facts.oldest_open_session_s)


async def _ask_kafka(consumer: KafkaConsumer, instruments: Instruments, needed_topics: AbstractSet[str]) -> None:
    """Polling an idle topic succeeds also while no broker answers, so a question is asked that can fail."""
    health = instruments.health
    try:
        missing = sorted(needed_topics - await consumer.topics())
    except KafkaUnavailableError as exc:
        health.check_failed("kafka", exc.cause)
        return
    health.check_passed("kafka")
    if missing:
        health.check_failed("topics", f"missing: {', '.join(missing)}")
    else:
        health.check_passed("topics")
    with suppress(KafkaUnavailableError):  # such as of a topic that is missing; the next round asks again
        await consumer.learn_ends()
