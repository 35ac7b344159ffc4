"""`cohort-sync segments`, and how the commands that take a SEGMENT find it."""

from __future__ import annotations

import asyncio

import click

from stores.model import OpenSession, Segment
from stores.postgres.reading import PostgresReader, postgres_reader
from worker.commands.frame import CommandError, json_option, with_settings
from worker.commands.output import Row, print_json, print_line, print_table, rfc3339, tell
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

    Where a tool is sending a full copy of a cohort in pages, it also shows how many are stored; --json has that as
    `replacing`.

    \b
    Examples:
      cohort-sync segments
      cohort-sync segments --environment production --json | jq -r .segment
    """  # noqa: D301 - click's mark for text that it must not wrap
    segments, replacing = asyncio.run(_segments(settings, environment))
    if as_json:
        print_json(*(segment_row(each, replacing.get((each.environment, each.key))) for each in segments))
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
        for session in replacing.values():
            print_line(session_in_words(session))
    else:
        tell("there are no segments" + (f" in {environment!r}" if environment else "") + " yet")


def segment_row(segment: Segment, replacing: OpenSession | None = None) -> Row:
    """A segment as --json gives it, with `replacing` only while a full copy of it misses pages."""
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
        **({"replacing": session_row(replacing)} if replacing else {}),
    }


def session_in_words(session: OpenSession) -> str:
    """How far a replace session has come, for people."""
    return (
        f"{session.segment} in {session.environment}: {session.stored_pages:,} of {session.pages:,} pages of replace "
        f"session {session.session!r} are stored, the last at {rfc3339(session.last_page_at)}; it removes nobody "
        "before all are"
    )


def session_row(session: OpenSession) -> Row:
    """The same as --json gives it."""
    return {
        "session": session.session,
        "stored_pages": session.stored_pages,
        "pages": session.pages,
        "since": rfc3339(session.since),
        "last_page_at": rfc3339(session.last_page_at),
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


async def _segments(
    settings: Settings, environment: str | None
) -> tuple[list[Segment], dict[tuple[str, str], OpenSession]]:
    """The segments, and of each the newest replace session that is not complete."""
    async with postgres_reader(settings.postgres.url()) as reader:
        sessions = await reader.open_sessions(environment)
        return await reader.segments(environment), {(each.environment, each.segment): each for each in sessions}
