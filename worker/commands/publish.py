"""`cohort-sync publish`: the lines of a file as records of a feed's topic."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import click

from consumers.errors import InvalidRecord
from consumers.feeds import Environments, Feed
from consumers.formats import Formats
from consumers.inspection import Outgoing, kafka_inspector, kafka_publisher
from consumers.normalize import Normalizer
from consumers.parsed import Parsed
from consumers.record import Record
from consumers.segment_key import segment_key
from worker.commands.frame import CommandError, json_option, with_settings
from worker.commands.output import print_json, print_line, progress
from worker.config.problems import did_you_mean
from worker.settings import Settings

Headers = tuple[tuple[str, bytes], ...]


@click.command("publish")
@click.option("--feed", "feed_name", required=True, metavar="NAME", help="The feed of the configuration to send to.")
@click.option("--topic", metavar="T", help="Which of its topics.  [default: the first]")
@click.option("--header", "header_texts", multiple=True, metavar="K=V", help="A header of every record; repeatable.")
@click.argument("file", type=click.File("rb"))
@json_option
@with_settings
def command(  # noqa: PLR0913 - click's options
    settings: Settings, *, feed_name: str, topic: str | None, header_texts: Sequence[str], file: BinaryIO, as_json: bool
) -> None:
    """Sends the lines of FILE to the topic of a feed.

    Each line is one JSON record; `-` reads standard input.

    Records are keyed as the README recommends, so that partitions share the load and Kafka keeps what concerns one
    thing in order: `environment/context-key` for a record about a single member, `environment/segment-key` for one that
    lists several. A line that can't be read is
    sent without a key, for the worker to reject.

    \b
    Examples:
      cohort-sync publish --feed amplitude cohorts.jsonl
      jq -c . payload.json | cohort-sync publish --feed any --header integration=hightouch -

    It ends when Kafka has acknowledged all of them, and tells how many, and how many lines were skipped as they are
    empty. With --json: {"topic", "acknowledged", "skipped"}.
    """  # noqa: D301 - click's mark for text that it must not wrap
    feed = _feed(settings, feed_name)
    topic = _topic(feed, topic)
    headers = tuple(_header(text) for text in header_texts)
    counts = asyncio.run(_publish(settings, _records(settings, feed, topic, headers, file), topic, _size(file)))
    if as_json:
        print_json({"topic": topic} | {name: counts[name] for name in ("acknowledged", "skipped")})
    else:
        skipped = f"; empty lines skipped: {counts['skipped']:,}" if counts["skipped"] else ""
        print_line(f"{counts['acknowledged']:,} records were acknowledged by {topic}{skipped}")


async def _publish(
    settings: Settings, records: Iterator[Outgoing | None], topic: str, total_bytes: int | None
) -> Counter[str]:
    connection, counts = settings.kafka.connection(), Counter[str]()
    async with kafka_inspector(connection) as kafka:
        if await kafka.missing_topics([topic]):
            raise CommandError(f"the topic {topic} does not exist: make it, as `cohort-sync config check` says")
    with progress("publishing", total_bytes) as advance:
        async with kafka_publisher(connection) as publisher:
            for record in records:
                if record is None:
                    counts["skipped"] += 1
                    continue
                await publisher.publish(record)
                advance(len(record.value or b"") + 1)
                counts["acknowledged"] += 1
    return counts


def _records(
    settings: Settings, feed: Feed, topic: str, headers: Headers, lines: BinaryIO
) -> Iterator[Outgoing | None]:
    """A record for each line, and None for an empty one."""
    normalizer = Normalizer(
        environments=Environments(settings.environment_list()),
        limits=settings.record_limits(),
        formats=Formats(settings.manifest_paths()),
    )
    for line in lines:
        value = line.rstrip(b"\r\n")
        if not value:
            yield None
            continue
        yield Outgoing(topic, _key(normalizer, Record(topic, 0, 0, 0, None, value, headers), feed), value, headers)


def _key(normalizer: Normalizer, record: Record, feed: Feed) -> bytes | None:
    """What the record is about, or None where that can't be said."""
    try:
        parsed = normalizer.parse(record, feed)
    except InvalidRecord:
        return None
    subject = _subject(parsed)
    if parsed.environment is None or subject is None:
        return None
    return f"{parsed.environment}/{subject}".encode()


def _subject(parsed: Parsed) -> str | None:
    """The context of a record about one, and else the segment: what is done to all of it concerns each member."""
    if parsed.members == 1 and parsed.operation is None and parsed.changes:
        return parsed.changes[0].context_keys[0]
    about = parsed.operation or next(iter(parsed.changes), None)
    return segment_key(about.cohort.integration, about.cohort.cohort_id) if about else None


def _feed(settings: Settings, name: str) -> Feed:
    feeds = {feed.name: feed for feed in settings.feed_list()}
    if name not in feeds:
        raise click.UsageError(f"there is no feed {name!r}{did_you_mean(name, list(feeds))}")
    return feeds[name]


def _topic(feed: Feed, topic: str | None) -> str:
    if topic is None and not feed.topics:
        raise click.UsageError(f"feed {feed.name!r} has a topic_pattern: say which topic with --topic")
    if topic is not None and not feed.carries(topic):
        raise click.UsageError(f"{topic!r} is no topic of feed {feed.name!r}")
    return topic or feed.topics[0]


def _header(text: str) -> tuple[str, bytes]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"--header {text!r} should be as in integration=hightouch")
    return name, value.encode()


def _size(file: BinaryIO) -> int | None:
    """How many bytes there are to read, where that can be known."""
    try:
        return os.fstat(file.fileno()).st_size or None
    except OSError:
        return None
