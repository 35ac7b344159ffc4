"""Composition of `cohort-sync gateway`: the only place that names concrete classes, and what runs beside the server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import structlog

from consumers.errors import KafkaUnavailableError
from consumers.feeds import Environments, Feed
from consumers.formats import HEADER, Formats
from consumers.normalize import Normalizer
from consumers.producing import AcknowledgedProducer
from stores.errors import StoreUnavailableError
from stores.postgres.segments import SegmentStore
from stores.postgres.tokens import TokenStore
from worker.backoff import until_available
from worker.garbage import make_collections_rare
from worker.gateway import openapi
from worker.gateway.connection_test import ConnectionTest
from worker.gateway.custom_answers import CustomAnswers
from worker.gateway.intake import Intake
from worker.gateway.limits import InFlight, RateLimit
from worker.gateway.lists import Lists
from worker.gateway.metrics import GatewayMetrics
from worker.gateway.routing import OTHER, Endpoint, Watch, application
from worker.gateway.segment_targets import SegmentTargets
from worker.gateway.segments_rest import SegmentsRest
from worker.gateway.server import DRAIN_S, GatewayServer
from worker.gateway.tags import SegmentTags
from worker.gateway.tokens import KnownTokens
from worker.gateway.tracking import Tracking
from worker.gateway.webhooks import Webhooks
from worker.health import STOPPING, Health
from worker.http_server import HttpServer
from worker.settings import Settings
from worker.watchdog import Watchdog, measure_loop_lag, show_life

log = structlog.get_logger(__name__)

CHECK_EVERY_S = 5.0


async def run_gateway(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT, and then answers what it has accepted. Raises what a person must mend."""
    health = Health(("kafka", "postgres"))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    async with AsyncExitStack() as stack:
        tokens = await stack.enter_async_context(TokenStore(settings.postgres.url))
        segments = await stack.enter_async_context(SegmentStore(settings.postgres.url))
        producer = await stack.enter_async_context(AcknowledgedProducer(settings.kafka.connection()))
        known = KnownTokens(tokens, health)
        in_flight = InFlight()
        endpoints = _endpoints(settings, known, segments, producer, in_flight)
        metrics = GatewayMetrics([OTHER, *(endpoint.name for endpoint in endpoints)])
        metrics.gateway_in_flight.set_function(lambda: in_flight.requests)
        watch = Watch(metrics, is_draining=stopping.is_set)
        app = application(endpoints, watch)
        await stack.enter_async_context(HttpServer(metrics, health, host=settings.http.host, port=settings.http.port))
        stack.enter_context(Watchdog(health, stall_s=settings.watchdog.stall_s))
        beside = [
            asyncio.create_task(measure_loop_lag(metrics), name="loop-lag"),
            asyncio.create_task(show_life(health), name="life"),
        ]
        try:
            starting = asyncio.create_task(until_available(health, "postgres", tokens.require_schema))
            if not await _done_before(starting, stopping):
                return
            topics = [feed.topics[0] for feed in settings.feed_list() if feed.topics]
            beside.append(asyncio.create_task(known.keep(), name="tokens"))
            beside.append(asyncio.create_task(_check(health, producer, topics), name="kafka-check"))
            make_collections_rare()
            async with GatewayServer(
                app, host=settings.gateway.host, port=settings.gateway.port, malformed=watch.malformed
            ):
                await _first_end(stopping, beside)
                health.check_failed(STOPPING, "the process was asked to end")
                await asyncio.sleep(DRAIN_S)
            with suppress(StoreUnavailableError):
                await known.note_use()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
    log.info("gateway_stopped")


def _endpoints(
    settings: Settings,
    tokens: KnownTokens,
    segments: SegmentStore,
    producer: AcknowledgedProducer,
    in_flight: InFlight,
) -> list[Endpoint]:
    formats, environments = Formats(settings.manifest_paths()), Environments(settings.environment_list())
    intake = Intake(
        tokens=tokens,
        rates=RateLimit(settings.gateway.token_requests_per_s),
        in_flight=in_flight,
        normalizer=Normalizer(environments=environments, limits=settings.record_limits(), formats=formats),
        tags=SegmentTags(segments),
        producer=producer,
        projects={each.key: each.project for each in settings.environment_list()},
        max_body_bytes=min(settings.gateway.max_body_bytes, settings.limits.record_bytes),
        max_members=settings.gateway.max_members,
    )
    answers = CustomAnswers(formats, intake)
    feed, feeds = gateway_feed(settings), {each.name: each for each in settings.feed_list() if each.topics}
    families = (
        SegmentTargets(intake, feed, formats, answers),
        Tracking(intake, feeds),
        Lists(intake, feed=feed, feeds=feeds, environments=environments, names=segments),
        Webhooks(intake, feeds=feeds, secrets=settings.webhook_secrets(), formats=formats, answers=answers),
        ConnectionTest(intake, environments),
        SegmentsRest(intake, segments, settings.environment_list()),
    )
    endpoints = [endpoint for family in families for endpoint in family.endpoints()]
    return [*endpoints, openapi.endpoint_of(endpoints)]


def gateway_feed(settings: Settings) -> Feed | None:
    """Where segment-targets and lists publish: the feed that is named, else the first with `format: header`."""
    feeds = [feed for feed in settings.feed_list() if feed.topics]
    name = settings.gateway.feed
    return next((feed for feed in feeds if (feed.name == name if name else feed.format == HEADER)), None)


async def _check(health: Health, producer: AcknowledgedProducer, topics: Sequence[str]) -> None:
    """Readiness: the brokers answer, and the topics are there. Never ends."""
    while True:
        try:
            missing = await producer.check(topics)
        except KafkaUnavailableError as exc:
            health.check_failed("kafka", exc.cause)
        else:
            if missing:
                health.check_failed("kafka", f"these topics are missing: {', '.join(missing)}")
            else:
                health.check_passed("kafka")
        await asyncio.sleep(CHECK_EVERY_S)


async def _done_before(work: asyncio.Task[None], stopping: asyncio.Event) -> bool:
    """Whether the work was done before the process was asked to end. Raises what the work raises."""
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait((work, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not work.done():
        work.cancel()
        return False
    work.result()
    return True


async def _first_end(stopping: asyncio.Event, beside: Sequence[asyncio.Task[None]]) -> None:
    """Until the process is asked to end. What runs beside never ends but by an error, which comes out."""
    asked = asyncio.create_task(stopping.wait())
    done, _ = await asyncio.wait((asked, *beside), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    for task in done:
        task.result()
