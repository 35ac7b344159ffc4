"""`cohort-sync segments`, and how the commands that take a SEGMENT find it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from stores.model import OpenSession, Segment
from stores.postgres.change_feed import ChangeFeed
from stores.postgres.reading import PostgresReader, postgres_reader
from worker.commands.frame import CommandError, config_option, json_option, with_settings
from worker.commands.output import Row, print_json, print_line, print_table, rfc3339, tell
from worker.config.problems import nearest
from worker.settings import Settings, environment_of

environment_option = click.option(
    "--environment", metavar="E", help="The environment, where the key exists in several."
)


@click.group("segments", invoke_without_command=True)
@click.pass_context
@click.option("--environment", metavar="E", help="Only the segments of this environment.")
@json_option
@config_option
def command(ctx: click.Context, config_file: Path | None, *, environment: str | None, as_json: bool) -> None:
    """Shows the segments with their counts and last changes.

    Where a tool is sending a full copy of a cohort in pages, it also shows how many are stored; --json has that as
    `replacing`.

    \b
    Examples:
      cohort-sync segments
      cohort-sync segments --environment production --json | jq -r .segment
    """  # noqa: D301 - click's mark for text that it must not wrap
    if ctx.invoked_subcommand is None:
        ctx.invoke(_show, config_file=config_file, environment=environment, as_json=as_json)


@with_settings
def _show(settings: Settings, *, environment: str | None, as_json: bool) -> None:
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


@command.command("set-generation")
@click.argument("segment")
@click.argument("generation", type=click.IntRange(min=0, max=2**31 - 1))
@environment_option
@with_settings
def set_generation(settings: Settings, *, segment: str, generation: int, environment: str | None) -> None:
    """Sets the generation that SDKs look for in the projections of a segment.

    An SDK takes the generation from its own flag data: LaunchDarkly's, or `cohort-sync sdk-data`. The projections are
    filled with the new one beside the old one, which `cohort-sync rebuild` takes out when no SDK asks for it any more.

    \b
    Example:
      cohort-sync segments set-generation amplitude-7khm89cz 2
    """  # noqa: D301 - click's mark for text that it must not wrap
    was = asyncio.run(_set_generation(settings, segment, generation, environment))
    print_line(f"{segment}: generation {generation}, was {was}")


async def _set_generation(settings: Settings, key: str, generation: int, environment: str | None) -> int:
    async with postgres_reader(settings.postgres.url()) as reader:
        segment = await the_segment(reader, key, environment)
    names = [each.name for each in settings.projections if environment_of(settings, each) == segment.environment]
    async with ChangeFeed(settings.postgres.url()) as feed:
        await feed.set_generation(segment.id, generation, names)
    return segment.generation


def segment_row(segment: Segment, replacing: OpenSession | None = None) -> Row:
    """A segment as --json gives it.

    It has `replacing` only while a full copy misses pages, and `other_generation` only while projections hold one.
    """
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
        **({"other_generation": segment.other_generation} if segment.other_generation is not None else {}),
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
