"""`cohort-sync segments`, and how the commands that take a SEGMENT find it."""

from __future__ import annotations

import asyncio

import click

from stores.model import Segment
from stores.postgres.reading import PostgresReader, postgres_reader
from worker.commands.frame import CommandError, json_option, with_settings
from worker.commands.output import Row, print_json, print_table, rfc3339, tell
from worker.config.problems import nearest
from worker.settings import Settings

environment_option = click.option(
    "--environment", metavar="E", help="The environment, where the key exists in several."
)


@click.command("segments")
@click.option("--environment", metavar="E", help="Only the segments of this environment.")
@json_option
@with_settings
def command(settings: Settings, *, environment: str | None, as_json: bool) -> None:
    """Shows the segments with their counts and last changes.

    \b
    Examples:
      cohort-sync segments
      cohort-sync segments --environment production --json | jq -r .segment
    """  # noqa: D301 - click's mark for text that it must not wrap
    segments = asyncio.run(_segments(settings, environment))
    if as_json:
        print_json(*map(segment_row, segments))
    elif segments:
        columns = ("environment", "segment", "kind", "included", "generation", "last change", "integration", "name")
        rows = [
            (
                s.environment,
                s.key,
                s.context_kind,
                s.included_count,
                str(s.generation),
                rfc3339(s.last_change_at),
                s.integration,
                s.name,
            )
            for s in segments
        ]
        print_table(columns, rows, numbers=("included", "generation"))
    else:
        tell("there are no segments" + (f" in {environment!r}" if environment else "") + " yet")


def segment_row(segment: Segment) -> Row:
    """A segment as --json gives it."""
    return {
        "environment": segment.environment,
        "segment": segment.key,
        "context_kind": segment.context_kind,
        "integration": segment.integration,
        "cohort_id": segment.cohort_id,
        "cohort_name": segment.cohort_name,
        "name": segment.name,
        "description": segment.description,
        "tags": segment.tags,
        "generation": segment.generation,
        "included_count": segment.included_count,
        "created_at": rfc3339(segment.created_at),
        "last_change_at": rfc3339(segment.last_change_at),
    }


async def the_segment(reader: PostgresReader, key: str, environment: str | None) -> Segment:
    """The one segment of this key. Where there are several it is wrong usage; where there is none, an error."""
    found = await reader.segments_named(key, environment)
    if len(found) > 1:
        environments = ", ".join(segment.environment for segment in found)
        raise click.UsageError(
            f"segment {key!r} is in several environments: add --environment with one of {environments}"
        )
    if found:
        return found[0]
    known = [segment.key for segment in await reader.segments(environment)]
    # The keys of one integration begin alike, so they are like each other without being near.
    near = nearest(key, known, likeness=0.9)
    hint = f" (did you mean {near!r}?)" if near else "; `cohort-sync segments` shows all"
    raise CommandError(f"there is no segment {key!r}{f' in {environment!r}' if environment else ''}{hint}")


async def _segments(settings: Settings, environment: str | None) -> list[Segment]:
    async with postgres_reader(settings.postgres.url()) as reader:
        return await reader.segments(environment)
