"""`cohort-sync explain`: why one context is in a segment, or is not."""

from __future__ import annotations

import asyncio
from datetime import datetime

import click

from consumers.inspection import kafka_inspector
from consumers.record import Record, TopicPartition
from stores.model import Membership, Segment
from stores.postgres.erasing import Erasures, postgres_erasures
from stores.postgres.reading import postgres_reader
from worker.commands.frame import json_option, with_settings
from worker.commands.output import Row, print_json, print_line, rfc3339, shown, shown_content
from worker.commands.segments import environment_option, the_segment
from worker.commands.withholding import without_erased
from worker.settings import Settings


@click.command("explain")
@click.argument("segment")
@click.argument("context_key")
@environment_option
@click.option("--record", "with_record", is_flag=True, help="The record itself, while its topic still holds it.")
@json_option
@with_settings
def command(  # noqa: PLR0913 - click's options
    settings: Settings, *, segment: str, context_key: str, environment: str | None, with_record: bool, as_json: bool
) -> None:
    """Tells whether somebody is in a segment, and why.

    It shows since when CONTEXT_KEY is in SEGMENT, or no longer is, and which record decided it.

    A context that no record ever named is not included either: that is said, and the exit status is 0 then too; with
    --json, "included" is false and everything about a record is null. One who was erased has "erased_at" beside that.

    \b
    Examples:
      cohort-sync explain amplitude-7khm89cz u1
      cohort-sync explain amplitude-7khm89cz u1 --record --json | jq .record.value
    """  # noqa: D301 - click's mark for text that it must not wrap
    if not context_key.strip():
        raise click.BadParameter("a blank one is in no segment", param_hint="CONTEXT_KEY")
    asyncio.run(_explain(settings, segment, context_key, environment, with_record=with_record, as_json=as_json))


async def _explain(  # noqa: PLR0913 - click's options
    settings: Settings, key: str, context_key: str, environment: str | None, *, with_record: bool, as_json: bool
) -> None:
    async with postgres_reader(settings.postgres.url()) as reader:
        segment = await the_segment(reader, key, environment)
        member = await reader.member(segment, context_key)
    async with postgres_erasures(settings.postgres.url()) as erasures:
        erased_at = await erasures.erased_at(context_key)
        record = await _record_of(settings, member, erasures) if with_record and member else None
    if as_json:
        row = _row(segment, context_key, member) | ({"erased_at": rfc3339(erased_at)} if erased_at else {})
        print_json(row | {"record": _record_row(record)} if with_record else row)
    else:
        _print(segment, context_key, member, erased_at)
        if with_record and member:
            _print_record(record)


async def _record_of(settings: Settings, member: Membership, erasures: Erasures) -> Record | None:
    """The record that decided, without anybody who was erased; None where nothing of it is left to show."""
    async with kafka_inspector(settings.kafka.connection()) as kafka:
        found = await kafka.record(TopicPartition(member.topic, member.partition), member.offset)
    return await without_erased(found, erasures) if found and found.offset == member.offset else None


def _row(segment: Segment, context_key: str, member: Membership | None) -> dict[str, object]:
    return {
        "environment": segment.environment,
        "segment": segment.key,
        "context_kind": segment.context_kind,
        "context_key": context_key,
        "included": member.included if member else False,
        "event_time": rfc3339(member.version.event_time_us) if member else None,
        "topic": member.topic if member else None,
        "partition": member.partition if member else None,
        "offset": member.offset if member else None,
        "integration": segment.integration if member else None,
    }


def _record_row(record: Record | None) -> Row | None:
    if record is None:
        return None
    return {
        "timestamp": rfc3339(record.timestamp_ms * 1000),
        "key": _text(record.key),
        "value": _text(record.value),
        "headers": {name: _text(value) for name, value in record.headers},
    }


def _print(segment: Segment, context_key: str, member: Membership | None, erased_at: datetime | None) -> None:
    of = f"{segment.key} of {segment.environment}"
    who = f"{segment.context_kind} {shown(context_key)}"
    if member is None and erased_at:
        print_line(f"{who} is not in {of}: it was erased at {rfc3339(erased_at)}, and no record brings it in.")
        return
    if member is None:
        print_line(f"{who} is not in {of}: no record ever named it.")
        return
    print_line(f"{who} is {'in' if member.included else 'no longer in'} {of}")
    print_line(f"  since        {rfc3339(member.version.event_time_us)}")
    print_line(f"  decided by   topic {member.topic}, partition {member.partition}, offset {member.offset}")
    print_line(f"  integration  {member.integration}")


def _print_record(record: Record | None) -> None:
    if record is None:
        print_line("  record       its topic no longer holds it, or it may be about somebody who was erased")
        return
    print_line(f"  arrived      {rfc3339(record.timestamp_ms * 1000)}")
    print_line(f"  key          {shown_content(record.key)}")
    for name, value in record.headers:
        print_line(f"  header       {shown(name)}: {shown(_text(value))}")
    print_line(f"  value        {shown_content(record.value)}")


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")
