"""Composition: the only place that names concrete classes. Starts the parts in order, stops them in reverse."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import NamedTuple

import structlog

from consumers.dead_letter import DeadLetterProducer
from consumers.feeds import Environments
from consumers.formats import Formats
from consumers.kafka import KafkaConsumer
from consumers.normalize import Normalizer
from stores.postgres.rejects import RejectIndex
from stores.postgres.writing import PostgresStore
from worker.backoff import until_available
from worker.batch import BatchPolicy
from worker.catch_up import wait_until_caught_up
from worker.dead_letter_guard import DeadLetterGuard
from worker.decoder import Decoder
from worker.delivery import Delivery
from worker.garbage import make_collections_rare
from worker.health import Health
from worker.http_server import HttpServer
from worker.instruments import Instruments
from worker.metrics import Metrics
from worker.observer import observe_kafka, observe_store
from worker.pipeline import Pipeline
from worker.segments import SegmentResolver
from worker.settings import Settings
from worker.sweeper import finish_sweeps, sweep
from worker.watchdog import Watchdog, measure_loop_lag
from worker.writer import BatchWriter

log = structlog.get_logger(__name__)

DRAIN_SHARE = 0.75
"""Of the grace period, so much is for the drain; the rest is for leaving the group and closing connections."""


class Worker(NamedTuple):
    """The parts that a running worker consists of."""

    consumer: KafkaConsumer
    store: PostgresStore
    dead_letters: DeadLetterProducer
    rejects: RejectIndex
    pipeline: Pipeline
    instruments: Instruments
    topics: frozenset[str]
    """The topics that the configuration names."""


def compose(settings: Settings) -> Worker:
    """Builds the parts and connects nothing yet."""
    feeds = settings.feed_list()
    formats = Formats(settings.manifest_paths())
    instruments = Instruments(Metrics(feeds, integrations=formats.names()), Health())
    store = PostgresStore(settings.postgres.url, pool_max_size=settings.postgres.pool_max_size)
    kafka = settings.kafka.connection()
    environments = Environments(settings.environment_list())
    consumer = KafkaConsumer(
        kafka,
        group_id=settings.kafka.group_id,
        session_timeout_ms=settings.kafka.session_timeout_ms,
        feeds=feeds,
        saying=environments.fingerprint(),
    )
    dead_letters = DeadLetterProducer(kafka, topic=settings.kafka.dead_letter_topic)
    rejects = RejectIndex(settings.postgres.url)
    guard = DeadLetterGuard(
        max_ratio=settings.dead_letters.max_ratio, window_records=settings.dead_letters.window_records
    )
    decoder = Decoder(
        feeds=feeds,
        normalizer=Normalizer(
            environments=environments,
            limits=settings.record_limits(),
            skip_unknown_environment=settings.unknown_environment == "skip",
            formats=formats,
        ),
        store=store,
        guard=guard,
        instruments=instruments,
    )
    delivery = Delivery(
        segments=SegmentResolver(store),
        writer=BatchWriter(store, instruments=instruments),
        dead_letters=dead_letters,
        rejects=rejects,
        guard=guard,
        instruments=instruments,
    )
    policy = BatchPolicy(
        max_deltas=settings.batch.max_deltas, max_bytes=settings.batch.max_bytes, max_wait_s=settings.batch.max_wait_s
    )
    pipeline = Pipeline(consumer=consumer, decoder=decoder, delivery=delivery, policy=policy, instruments=instruments)
    topics = frozenset(topic for feed in feeds for topic in feed.topics) | {settings.kafka.dead_letter_topic}
    return Worker(consumer, store, dead_letters, rejects, pipeline, instruments, topics)


async def run_worker(settings: Settings, *, until_caught_up: bool = False) -> None:
    """Runs the worker until SIGTERM or SIGINT, or until it has caught up. Raises what only a person can mend."""
    worker = compose(settings)
    make_collections_rare()
    drain_s = DRAIN_SHARE * settings.shutdown.grace_s
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            HttpServer(*worker.instruments, host=settings.http.host, port=settings.http.port)
        )
        stack.enter_context(Watchdog(worker.instruments.health, stall_s=settings.watchdog.stall_s))
        await stack.enter_async_context(worker.store)
        await stack.enter_async_context(worker.dead_letters)
        await stack.enter_async_context(worker.rejects)
        running = asyncio.create_task(_run(worker, until_caught_up=until_caught_up, drain_s=drain_s), name="worker")
        _on_signals(running, worker.pipeline, drain_s)
        await running
    log.info("worker_stopped")


async def _run(worker: Worker, *, until_caught_up: bool, drain_s: float) -> None:
    consumer, store, pipeline, instruments = worker.consumer, worker.store, worker.pipeline, worker.instruments
    await until_available(instruments.health, "postgres", store.require_schema)
    instruments.health.check_failed("assignment", "no partitions were given out yet")
    await until_available(instruments.health, "kafka", lambda: consumer.start(pipeline))
    log.info("worker_started")
    try:
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(observe_kafka(consumer, instruments, worker.topics), name="observer-kafka"),
                tasks.create_task(
                    observe_store(store, consumer, instruments, pipeline.stored_offsets), name="observer-store"
                ),
                tasks.create_task(measure_loop_lag(instruments.metrics), name="loop-lag"),
                tasks.create_task(sweep(store), name="sweeper"),
            ]
            if until_caught_up:
                beside.append(tasks.create_task(_stop_when_caught_up(worker, drain_s), name="catch-up"))
            await pipeline.run()
            for task in beside:
                task.cancel()
        if until_caught_up:
            await finish_sweeps(store)
    finally:
        await consumer.stop()


async def _stop_when_caught_up(worker: Worker, drain_s: float) -> None:
    await wait_until_caught_up(worker.consumer, worker.pipeline.held_topics, worker.instruments.health)
    worker.pipeline.stop(within_s=drain_s)


def _on_signals(running: asyncio.Task[None], pipeline: Pipeline, drain_s: float) -> None:
    """The first signal drains. Before there is anything to drain it ends the start."""
    loop = asyncio.get_running_loop()

    def stop(name: str) -> None:
        log.info("stop_requested", signal=name)
        if pipeline.running:
            pipeline.stop(within_s=drain_s)
        else:
            running.cancel()

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum.name)
