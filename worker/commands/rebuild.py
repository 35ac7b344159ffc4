"""`cohort-sync rebuild`: a projection is brought back to the truth."""

from __future__ import annotations

import asyncio

import click

from worker.commands.audit import RepairedDrift, projection_named, repaired
from worker.commands.frame import with_settings
from worker.commands.output import print_line, progress
from worker.settings import ProjectionSettings, Settings


@click.command("rebuild")
@click.argument("target")
@with_settings
def command(settings: Settings, *, target: str) -> None:
    """Applies all memberships to a projection again, while it keeps serving, and takes out what does not belong.

    TARGET is the name of a projection. Missing members are added first, then what stands there and belongs to nobody
    is swept, such as generations that are no longer in use. Nobody who is in drops out meanwhile.

    \b
    Example:
      cohort-sync rebuild sdk
    """  # noqa: D301 - click's mark for text that it must not wrap
    drift = asyncio.run(_rebuild(settings, projection_named(settings, target)))
    print_line(f"{target} is whole: {drift.missing:,} were still missing and {drift.extra:,} did not belong")


async def _rebuild(settings: Settings, projection: ProjectionSettings) -> RepairedDrift:
    with progress(f"rebuilding {projection.name}", None) as advance:
        return await repaired(settings, projection, advance, from_the_start=True)
