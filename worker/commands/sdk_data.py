"""`cohort-sync sdk-data`: the segments as the flag data of the LaunchDarkly SDKs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import click

from stores.model import Segment
from stores.postgres.reading import postgres_reader
from worker.commands.frame import CommandError, with_settings
from worker.commands.output import Row, print_line
from worker.settings import Settings


@click.command("sdk-data")
@click.option("--environment", metavar="E", help="The environment; needed only where there are several.")
@with_settings
def command(settings: Settings, *, environment: str | None) -> None:
    """Prints the segments as the data file of the SDKs' file data source and offline tools.

    A segment stands there as unbounded: who is in it, an SDK reads from the store that `cohort-sync project` fills.
    Put your flags beside the segments, or give an SDK both files. The file changes only with new segments,
    `cohort-sync rebuild --generation` and `cohort-sync segments set-generation`.

    \b
    Example:
      cohort-sync sdk-data --environment production > segments.json
    """  # noqa: D301 - click's mark for text that it must not wrap
    segments = asyncio.run(_segments(settings, environment))
    environments = sorted({segment.environment for segment in segments})
    if len(environments) > 1:
        raise click.UsageError(
            f"there are several environments: add --environment with one of {', '.join(environments)}"
        )
    if not segments:
        raise CommandError("there are no segments" + (f" in {environment!r}" if environment else "") + " yet")
    print_line(sdk_data(segments))


def sdk_data(segments: Sequence[Segment]) -> str:
    """The data file with these segments, all of one environment."""
    return json.dumps({"flags": {}, "segments": {each.key: sdk_segment(each) for each in segments}}, indent=2)


def sdk_segment(segment: Segment) -> Row:
    """A segment as SDKs read it. Source: the data model of the Python SDK, `ldclient.impl.model.segment`."""
    return {
        "key": segment.key,
        "version": segment.generation,
        "unbounded": True,
        "unboundedContextKind": segment.context_kind,
        "generation": segment.generation,
        "included": [],
        "excluded": [],
        "rules": [],
        "salt": segment.key,
        "deleted": False,
    }


async def _segments(settings: Settings, environment: str | None) -> list[Segment]:
    async with postgres_reader(settings.postgres.url()) as reader:
        return await reader.segments(environment)
