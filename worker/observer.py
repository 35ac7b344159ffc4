"""What is measured beside the flow: lag, pauses, and whether the store answers while nothing is written."""

from __future__ import annotations

import asyncio
from collections import Counter

from consumers.kafka import KafkaConsumer
from stores.errors import StoreError
from stores.postgres.writing import PostgresStore
from worker.instruments import Instruments

OBSERVE_EVERY_S = 1.0
ASK_STORE_EVERY = 5
"""Observations between two questions to the store."""


async def observe(consumer: KafkaConsumer, store: PostgresStore, instruments: Instruments) -> None:
    """Keeps gauges and the store's check up to date. Ends only with an error that a new process would not have."""
    metrics, health = instruments
    round_number = 0
    while True:
        await consumer.require_membership()
        lags = consumer.lag_records()
        metrics.set_lags(lags)
        metrics.assigned_partitions.set(len(consumer.assignment()))
        paused = consumer.paused()
        metrics.set_paused(Counter(reason for reasons in paused.values() for reason in reasons))
        health.tell("paused_partitions", {f"{tp.topic}:{tp.partition}": sorted(why) for tp, why in paused.items()})
        if round_number % ASK_STORE_EVERY == 0:
            try:
                facts = await store.facts()
            except StoreError as exc:
                health.check_failed("postgres", type(exc).__name__)
            else:
                health.check_passed("postgres")
                metrics.segments.set(facts.segments)
                metrics.store_horizon_age_seconds.set(facts.horizon_age_s)
        round_number += 1
        await asyncio.sleep(OBSERVE_EVERY_S)
