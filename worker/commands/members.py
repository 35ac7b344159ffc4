"""`cohort-sync members`: who is in a segment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import click

from stores.model import Membership
from stores.postgres.reading import postgres_reader
from worker.commands.frame import json_option, with_settings
from worker.commands.output import Row, print_json, print_line, print_long_table, rfc3339
from worker.commands.segments import environment_option, the_segment
from worker.settings import Settings

_COLUMNS = ("context_key", "included", "since", "topic", "partition", "offset")


@click.command("members")
@click.argument("segment")
@environment_option
@click.option("--all", "with_removed", is_flag=True, help="Those that were removed, too.")
@click.option("--count", is_flag=True, help="Only how many.")
@json_option
@with_settings
def command(  # noqa: PLR0913 - click's options
    settings: Settings, *, segment: str, environment: str | None, with_removed: bool, count: bool, as_json: bool
) -> None:
    """Shows the members of a segment.

    SEGMENT is its key. Each member is shown with the record that put it in, or out.

    The members are streamed, so a segment of any size can be shown.

    \b
    Examples:
      cohort-sync members amplitude-7khm89cz
      cohort-sync members amplitude-7khm89cz --count
      cohort-sync members amplitude-7khm89cz --all --json > members.jsonl
    """  # noqa: D301 - click's mark for text that it must not wrap
    asyncio.run(_show(settings, segment, environment, with_removed=with_removed, count=count, as_json=as_json))


def member_row(member: Membership) -> Row:
    """A member as --json gives it."""
    return {
        "environment": member.environment,
        "segment": member.segment,
        "context_kind": member.context_kind,
        "context_key": member.context_key,
        "included": member.included,
        "event_time": rfc3339(member.version.event_time_us),
        "topic": member.topic,
        "partition": member.partition,
        "offset": member.offset,
    }


async def _show(  # noqa: PLR0913 - click's options
    settings: Settings, key: str, environment: str | None, *, with_removed: bool, count: bool, as_json: bool
) -> None:
    async with postgres_reader(settings.postgres.url()) as reader:
        segment = await the_segment(reader, key, environment)
        if count:
            number = await reader.count_members(segment, with_removed=with_removed)
            _print_count(segment.environment, key, number, as_json=as_json)
            return
        members = reader.members(segment, with_removed=with_removed)
        if as_json:
            async for member in members:
                print_json(member_row(member))
        else:
            await print_long_table(_COLUMNS, _cells(members))


def _print_count(environment: str, segment: str, number: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"environment": environment, "segment": segment, "count": number})
    else:
        print_line(str(number))


async def _cells(members: AsyncIterator[Membership]) -> AsyncIterator[Sequence[object]]:
    async for each in members:
        since = rfc3339(each.version.event_time_us)
        yield each.context_key, each.included, since, each.topic, str(each.partition), str(each.offset)
