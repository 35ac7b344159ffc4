"""`cohort-sync dead-letters`: what was rejected and why, and sending it again once the cause is mended."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import click

from consumers.dead_letter import HEADER_PREFIX
from consumers.errors import Reason
from consumers.inspection import KafkaInspector, KafkaPublisher, Outgoing, kafka_inspector, kafka_publisher
from consumers.record import ORIGINAL_PREFIX, Origin, Record
from stores.postgres.erasing import Erasures, postgres_erasures
from worker.commands.frame import CommandError, json_option, with_settings
from worker.commands.output import (
    print_json,
    print_line,
    print_long_table,
    print_table,
    progress,
    rfc3339,
    shown,
    shown_content,
    tell,
)
from worker.commands.withholding import without_erased
from worker.config.problems import did_you_mean
from worker.settings import Settings

_AGO = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_POSITION = re.compile(r"([A-Za-z0-9._-]+):([0-9]{1,9}):([0-9]{1,18})")


class Letter(NamedTuple):
    """A dead letter as the topic holds it, but for what it says of people who were erased since."""

    record: Record
    origin: Origin
    reason: str
    detail: str
    at: str
    members: list[int] | None
    is_withheld: bool = False
    """Nothing of its content is about anybody else, or nobody can tell."""

    @property
    def position(self) -> str:
        """Where the record first arrived, as `show` takes it."""
        return f"{self.origin.topic}:{self.origin.partition}:{self.origin.offset}"

    @property
    def is_truncated(self) -> bool:
        """Whether the value had to be cut, so that it can't be sent again."""
        return self.record.header(HEADER_PREFIX + "truncated") is not None


class Choice(NamedTuple):
    """Which dead letters are meant; None is any."""

    reason: str | None = None
    topic: str | None = None
    since: datetime | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether this one is meant."""
        return (
            self.reason in (None, letter.reason)
            and self.topic in (None, letter.origin.topic)
            and (self.since is None or _moment(letter.at) >= self.since)
        )


class _Since(click.ParamType[datetime]):
    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """An RFC 3339 time, or so long ago as 2h or 3d."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither a time as 2026-01-31T08:00:00Z nor an age as 90m, 2h or 3d", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _checked_reason(_context: click.Context, _option: click.Parameter, reason: str | None) -> str | None:
    if reason is not None and reason not in list(Reason):
        raise click.BadParameter(f"{reason!r} is no reason{did_you_mean(reason, list(Reason))}")
    return reason


def _choosing(function: click.decorators.FC) -> click.decorators.FC:
    """The options that narrow down which dead letters are meant."""
    for option in (
        click.option("--since", type=_Since(), help="Rejected since then: 2026-01-31T08:00:00Z, or an age: 2h, 3d."),
        click.option("--topic", metavar="T", help="Only of records that came from this topic."),
        click.option("--reason", metavar="R", callback=_checked_reason, help="Only with this reason."),
    ):
        function = option(function)
    return function


@click.group("dead-letters")
def command() -> None:
    """Shows what was rejected and why, and sends it again.

    \b
    A tour:
      cohort-sync dead-letters list                             # how many, by topic and reason
      cohort-sync dead-letters list --each --reason json_invalid
      cohort-sync dead-letters show cohorts.amplitude:3:1042    # all about one
      cohort-sync dead-letters replay --reason environment_unknown --since 2h --dry-run
    """  # noqa: D301 - click's mark for text that it must not wrap


@command.command("list")
@click.option("--each", "each_one", is_flag=True, help="Every one, instead of counts.")
@_choosing
@json_option
@with_settings
def list_letters(  # noqa: PLR0913 - click's options
    settings: Settings, *, each_one: bool, reason: str | None, topic: str | None, since: datetime | None, as_json: bool
) -> None:
    """Counts the dead letters by topic and reason, or with --each shows every one.

    \b
    Examples:
      cohort-sync dead-letters list
      cohort-sync dead-letters list --each --topic cohorts.amplitude --since 3d --json

    With --json, counts are {"topic", "reason", "count"}, and with --each there is
    {"position", "topic", "partition", "offset", "reason", "detail", "at", "members", "truncated"}.
    """  # noqa: D301 - click's mark for text that it must not wrap
    asyncio.run(_list(settings, Choice(reason, topic, since), each_one=each_one, as_json=as_json))


@command.command("show")
@click.argument("position", metavar="POSITION")
@json_option
@with_settings
def show(settings: Settings, *, position: str, as_json: bool) -> None:
    """Shows the dead letters of the record at POSITION: topic:partition:offset, as `list --each` gives it.

    It shows the record's content, which is personal data, but nothing about people who were erased. On a terminal a
    long value is cut; --json gives all of it.

    \b
    Examples:
      cohort-sync dead-letters show cohorts.amplitude:3:1042
      cohort-sync dead-letters show cohorts.amplitude:3:1042 --json | jq -r .value
    """  # noqa: D301 - click's mark for text that it must not wrap
    if not _POSITION.fullmatch(position):
        raise click.UsageError(f"{position!r} is no position: it should be as in cohorts.amplitude:3:1042")
    letters = asyncio.run(_letters_at(settings, position))
    if not letters:
        raise CommandError(f"{settings.kafka.dead_letter_topic} holds no dead letter of {position}")
    for letter in letters:
        row = _row(letter) | _content(letter)
        if as_json:
            print_json(row)
        else:
            contents = {"key": shown_content(letter.record.key), "value": shown_content(letter.record.value)}
            if letter.is_withheld:
                contents = dict.fromkeys(contents, "withheld: it is, or may be, about somebody who was erased")
            for name, value in (row | contents).items():
                print_line(f"{name:<10} {shown(value)}")
            print_line("")


@command.command("replay")
@_choosing
@click.option("--dry-run", is_flag=True, help="Only tell what would be sent.")
@json_option
@with_settings
def replay(  # noqa: PLR0913 - click's options
    settings: Settings, *, reason: str | None, topic: str | None, since: datetime | None, dry_run: bool, as_json: bool
) -> None:
    """Sends records that were rejected to the topics they came from, once the cause is mended.

    Each record is sent once, however many dead letters it has, and keeps the place and time of its first arrival: what
    was decided later still wins. Dead letters stay where they are. One that was cut to fit the topic can't be sent, and
    nothing is sent about people who were erased.

    \b
    Examples:
      cohort-sync dead-letters replay --reason environment_unknown --dry-run
      cohort-sync dead-letters replay --topic cohorts.amplitude --since 2026-01-31T08:00:00Z

    With --json: {"replayed", "truncated", "topic_missing", "erased", "dry_run"}, all but the last being counts.
    """  # noqa: D301 - click's mark for text that it must not wrap
    counts = asyncio.run(_replay(settings, Choice(reason, topic, since), dry_run=dry_run))
    if as_json:
        names = ("replayed", "truncated", "topic_missing", "erased")
        print_json({name: counts[name] for name in names} | {"dry_run": dry_run})
    else:
        print_line(f"{counts['replayed']:,} records {'would be' if dry_run else 'were'} sent again")
    if counts["topic_missing"]:
        raise CommandError(f"{counts['topic_missing']} records could not be sent, as their topics are gone")


async def _list(settings: Settings, choice: Choice, *, each_one: bool, as_json: bool) -> None:
    async with kafka_inspector(settings.kafka.connection()) as kafka:
        letters = _chosen(settings, kafka, choice)
        if each_one and as_json:
            async for letter in letters:
                print_json(_row(letter))
        elif each_one:
            cells = ((x.position, x.reason, x.at, x.detail) async for x in letters)
            await print_long_table(("position", "reason", "at", "detail"), cells)
        else:
            counts = Counter([(letter.origin.topic, letter.reason) async for letter in letters])
            _print_counts(counts, as_json=as_json)


def _print_counts(counts: Counter[tuple[str, str]], *, as_json: bool) -> None:
    rows = sorted(counts.items())
    if as_json:
        print_json(*({"topic": topic, "reason": reason, "count": count} for (topic, reason), count in rows))
    elif rows:
        print_table(("topic", "reason", "count"), [(*key, count) for key, count in rows], numbers=("count",))
    else:
        tell("there are no dead letters")


async def _letters_at(settings: Settings, position: str) -> list[Letter]:
    async with (
        postgres_erasures(settings.postgres.url()) as erasures,
        kafka_inspector(settings.kafka.connection()) as kafka,
    ):
        return [
            await _without_erased(letter, erasures)
            async for letter in _chosen(settings, kafka, Choice())
            if letter.position == position
        ]


async def _without_erased(letter: Letter, erasures: Erasures) -> Letter:
    kept = await without_erased(letter.record, erasures)
    return letter._replace(is_withheld=True) if kept is None else letter._replace(record=kept)


async def _replay(settings: Settings, choice: Choice, *, dry_run: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    seen: set[tuple[str, int, int]] = set()
    connection = settings.kafka.connection()
    async with (
        postgres_erasures(settings.postgres.url()) as erasures,
        kafka_inspector(connection) as kafka,
        kafka_publisher(connection) as publisher,
    ):
        topics = await kafka.topics()
        with progress("replaying", None) as advance:
            async for letter in _chosen(settings, kafka, choice):
                place = letter.origin[:3]
                if place in seen:
                    continue
                letter = await _without_erased(letter, erasures)  # noqa: PLW2901 - nothing more is to be known of it
                outcome = await _replayed(letter, topics, None if dry_run else publisher)
                # A second letter of the same record may be whole where this one was cut.
                if outcome != "truncated":
                    seen.add(place)
                counts[outcome] += 1
                advance()
    return counts


async def _replayed(letter: Letter, topics: set[str], publisher: KafkaPublisher | None) -> str:
    """What became of this one. Without a publisher nothing is sent."""
    if letter.is_truncated:
        tell(f"{letter.position} is skipped: its value was cut to fit the dead letter topic")
        return "truncated"
    if letter.origin.topic not in topics:
        tell(f"{letter.position} is skipped: its topic does not exist any more")
        return "topic_missing"
    if letter.is_withheld:
        tell(f"{letter.position} is skipped: it is, or may be, about somebody who was erased")
        return "erased"
    if publisher:
        await publisher.publish(_as_it_was(letter))
    return "replayed"


def _as_it_was(letter: Letter) -> Outgoing:
    """The record as it first arrived, with headers that say where and when that was."""
    topic, partition, offset, timestamp_ms = letter.origin
    place = {"topic": topic, "partition": partition, "offset": offset, "timestamp": timestamp_ms}
    own = [
        (name, value) for name, value in letter.record.headers if not name.startswith((HEADER_PREFIX, ORIGINAL_PREFIX))
    ]
    original = [(ORIGINAL_PREFIX + name, str(value).encode()) for name, value in place.items()]
    return Outgoing(topic, letter.record.key, letter.record.value, (*own, *original))


async def _chosen(settings: Settings, kafka: KafkaInspector, choice: Choice) -> AsyncIterator[Letter]:
    topic = settings.kafka.dead_letter_topic
    if await kafka.missing_topics([topic]):
        raise CommandError(
            f"the dead letter topic {topic} does not exist: `cohort-sync config check` tells what else is missing"
        )
    async for record in kafka.records(topic):
        letter = _letter(record)
        if letter is None:
            tell(f"{topic}:{record.partition}:{record.offset} is skipped: it is no dead letter of cohort-sync")
        elif choice.takes(letter):
            yield letter


def _letter(record: Record) -> Letter | None:
    """The record as a dead letter, or None where its headers don't say that it is one."""
    said = {name: record.header(HEADER_PREFIX + name) or "" for name in ("topic", "reason", "detail", "at")}
    try:
        partition, offset, timestamp_ms = (
            int(record.header(HEADER_PREFIX + name) or "") for name in ("partition", "offset", "timestamp")
        )
        members = json.loads(record.header(HEADER_PREFIX + "member") or "null")
        _moment(said["at"])
    except ValueError:
        return None
    origin = Origin(said["topic"], partition, offset, timestamp_ms)
    return Letter(record, origin, said["reason"], said["detail"], said["at"], members)


def _row(letter: Letter) -> dict[str, object]:
    topic, partition, offset, _ = letter.origin
    return {
        "position": letter.position,
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "reason": letter.reason,
        "detail": letter.detail,
        "at": letter.at,
        "members": letter.members,
        "truncated": letter.is_truncated,
    }


def _content(letter: Letter) -> dict[str, object]:
    record = letter.record
    if letter.is_withheld:
        return {"arrived": None, "key": None, "headers": {}, "value": None, "withheld": True}
    own = {
        name: (raw or b"").decode("utf-8", "replace")
        for name, raw in record.headers
        if not name.startswith(HEADER_PREFIX)
    }
    arrived_ms = record.header(HEADER_PREFIX + "timestamp")
    return {
        "arrived": rfc3339(int(arrived_ms or 0) * 1000),
        "key": None if record.key is None else record.key.decode("utf-8", "replace"),
        "headers": own,
        "value": None if record.value is None else record.value.decode("utf-8", "replace"),
    }


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
