"""`cohort-sync gateway`: HTTP in, Kafka out."""

from __future__ import annotations

import click

from worker.commands.frame import with_settings
from worker.settings import Settings


@click.command("gateway")
@with_settings
def command(settings: Settings) -> None:
    """Takes the webhooks of cohort tools over HTTP and publishes them to Kafka.

    A tool's LaunchDarkly destination, Segment's libraries and Amplitude's cohort destinations work against it when only
    their host is changed. It listens at gateway.host and gateway.port, and answers once Kafka has acknowledged. Several
    may run side by side. Who may send is a matter of `cohort-sync tokens`. It runs until SIGTERM or SIGINT.

    \b
    Examples:
      cohort-sync gateway
      curl -H "Authorization: $TOKEN" --json @batch.json http://127.0.0.1:8400/api/v2/segment-targets/amplitude
    """  # noqa: D301 - click's mark for text that it must not wrap
    # Here, as the other commands need none of it.
    import uvloop  # noqa: PLC0415

    from worker.gateway.app import run_gateway  # noqa: PLC0415
    from worker.logs import setup_logging  # noqa: PLC0415

    for feed in settings.feeds:
        if feed.name == settings.gateway.feed and not feed.topics:
            raise click.UsageError(f"gateway.feed {feed.name!r} has a topic_pattern: it needs a topic to publish to")
    setup_logging(format=settings.logging.format, level=settings.logging.level)
    uvloop.run(run_gateway(settings))
