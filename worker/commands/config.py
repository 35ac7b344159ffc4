"""`cohort-sync config check` and `config show`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import click
import yaml

from consumers.errors import KafkaUnavailableError
from consumers.feeds import Feed
from consumers.inspection import kafka_inspector
from stores.errors import StoreError
from stores.postgres.migrating import missing_migrations
from worker.commands.frame import FAILED, OK, json_option, with_address, with_settings
from worker.commands.output import print_json, print_line, print_table
from worker.projecting import target_of
from worker.settings import ProjectionSettings, Settings


class Finding(NamedTuple):
    """One thing that was looked at; without a `why` it is as it should be."""

    what: str
    why: str | None = None


@click.group("config")
def command() -> None:
    """Checks and shows the configuration.

    Any setting can be given by an environment variable too: COHORT_SYNC_ and its path, joined by __, with places in
    lists as numbers.

    \b
    Examples:
      cohort-sync config check
      COHORT_SYNC_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 cohort-sync config show
      COHORT_SYNC_FEEDS__0__ENVIRONMENT=staging cohort-sync config show
    """  # noqa: D301 - click's mark for text that it must not wrap


@command.command("check")
@json_option
@with_settings
def check(settings: Settings, *, as_json: bool) -> int:
    """Reads the configuration, connects to everything in it and says what is wrong.

    It exits with 1 if anything is, and with 2 where the configuration itself can't be used. With --json there is an
    object for each check: {"check", "ok", "why"}.

    \b
    Examples:
      cohort-sync config check
      cohort-sync config check --json | jq -r 'select(.ok | not) | .why'
    """  # noqa: D301 - click's mark for text that it must not wrap
    findings = asyncio.run(_look_at_all(settings))
    if as_json:
        print_json(*({"check": each.what, "ok": each.why is None, "why": each.why} for each in findings))
    else:
        print_table(
            ("check", "", "why"), [(each.what, "wrong" if each.why else "ok", each.why or "") for each in findings]
        )
    return FAILED if any(each.why for each in findings) else OK


@command.command("show")
@json_option
@with_settings
def show(settings: Settings, *, as_json: bool) -> None:
    """Shows the settings in effect, defaults and environment variables included. Secrets are masked.

    \b
    Examples:
      cohort-sync config show
      cohort-sync config show --json | jq .batch
    """  # noqa: D301 - click's mark for text that it must not wrap
    values = settings.model_dump(mode="json")
    if as_json:
        print_json(values)
    else:
        print_line(yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


async def _look_at_all(settings: Settings) -> list[Finding]:
    projections = [_projection(projection) for projection in settings.projections]
    found = await asyncio.gather(_postgres(settings), _kafka(settings), *projections)
    return [Finding("configuration"), *chain.from_iterable(found)]


async def _projection(projection: ProjectionSettings) -> list[Finding]:
    what = f"projection {projection.name}"
    try:
        async with target_of(projection) as target:
            await target.marker()
    except StoreError as exc:
        return [Finding(what, str(exc))]
    return [Finding(what)]


async def _postgres(settings: Settings) -> list[Finding]:
    try:
        missing = await missing_migrations(settings.postgres.url(), only_pre=True)
    except StoreError as exc:
        return [Finding("PostgreSQL", with_address(exc, settings))]
    why = f"lacks {', '.join(missing)}: run `cohort-sync migrate`" if missing else None
    return [Finding("PostgreSQL"), Finding("schema", why)]


async def _kafka(settings: Settings) -> list[Finding]:
    try:
        async with kafka_inspector(settings.kafka.connection()) as kafka:
            topics = await kafka.topics()
    except KafkaUnavailableError as exc:
        return [Finding("Kafka", with_address(exc, settings))]
    dead_letters = settings.kafka.dead_letter_topic
    return [
        Finding("Kafka"),
        *(_feed(feed, topics) for feed in settings.feed_list()),
        Finding(f"dead letter topic {dead_letters}", None if dead_letters in topics else "is missing: make it"),
    ]


def _feed(feed: Feed, topics: set[str]) -> Finding:
    missing: Sequence[str] = sorted(set(feed.topics) - topics)
    if missing:
        return Finding(f"feed {feed.name}", f"these topics are missing: {', '.join(missing)}: make them")
    if feed.topic_pattern and not any(map(feed.carries, topics)):
        return Finding(f"feed {feed.name}", f"no topic matches topic_pattern {feed.topic_pattern!r} yet")
    return Finding(f"feed {feed.name}")
