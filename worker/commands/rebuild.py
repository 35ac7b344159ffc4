"""`cohort-sync rebuild`: a projection is brought back to the truth, in place or in a new generation beside the old."""

from __future__ import annotations

import asyncio

import click

from stores.model import Segment
from stores.postgres.change_feed import ChangeFeed, GenerationKeptError
from stores.postgres.reading import postgres_reader
from worker.commands.audit import audit_of, projection_named
from worker.commands.frame import CommandError, with_settings
from worker.commands.output import print_line, progress, tell
from worker.commands.projecting_beside import projecting
from worker.commands.sdk_data import sdk_data
from worker.projecting import projection_of
from worker.settings import ProjectionSettings, Settings, environment_of


@click.command("rebuild")
@click.argument("target")
@click.option(
    "--generation", "beside", is_flag=True, help="Fill the next generation beside the old; print its SDK data."
)
@click.option("--sweep", is_flag=True, help="Take out the generation that was kept beside, when no SDK asks for it.")
@with_settings
def command(settings: Settings, *, target: str, beside: bool, sweep: bool) -> None:
    """Applies all memberships to a projection again, while it keeps serving, and takes out what does not belong.

    TARGET is the name of a projection. Missing members are added first, then what stands there and belongs to nobody
    is swept, such as generations that are no longer in use. Nobody who is in drops out meanwhile.

    With --generation it fills the next generation of every segment beside the one that SDKs read, and then prints the
    flag data that asks for it, as `cohort-sync sdk-data` does from then on. Both are kept in step with all changes
    until --sweep takes the old one out: SDKs see the old one or the new one, never half of one. As generations belong
    to segments, this is done in all projections of the environment.

    \b
    Examples:
      cohort-sync rebuild sdk
      cohort-sync rebuild sdk --generation > segments.json    # give it to the SDKs, then:
      cohort-sync rebuild sdk --sweep
    """  # noqa: D301 - click's mark for text that it must not wrap
    if beside and sweep:
        raise click.UsageError("--generation and --sweep are two steps: give the SDKs the new data in between")
    projection = projection_named(settings, target)
    environment = environment_of(settings, projection)
    all_of_it = [each for each in settings.projections if environment_of(settings, each) == environment]
    if beside:
        asyncio.run(_fill_beside(settings, all_of_it))
    else:
        swept = asyncio.run(_rebuild(settings, all_of_it if sweep else [projection], sweep=sweep))
        print_line(f"{target} is whole; {swept:,} references did not belong there and are gone")


async def _rebuild(settings: Settings, projections: list[ProjectionSettings], *, sweep: bool) -> int:
    """Applies all again, or sweeps what was kept beside. Returns how many references did not belong."""
    names, swept = [each.name for each in projections], 0
    with progress(f"rebuilding {', '.join(names)}", None) as advance:
        async with projecting(settings, projections) as beside:
            if sweep:
                await beside.feed.forget_generation(environment_of(settings, projections[0]))
            else:
                await beside.feed.apply_again(names)
            await beside.settled()
            for each in projections:
                audit = audit_of(beside, projection_of(settings, each))
                async for extra in audit.extra():
                    advance()
                    swept += len(extra)
                    await audit.repair(extra)
            await beside.settled()
    return swept


async def _fill_beside(settings: Settings, projections: list[ProjectionSettings]) -> None:
    environment, names = environment_of(settings, projections[0]), [each.name for each in projections]
    with progress(f"filling the next generation in {', '.join(names)}", None):
        if not await _segments(settings, environment):
            raise CommandError(f"there are no segments in {environment!r} yet")
        async with projecting(settings, projections) as beside:
            await _begin(beside.feed, environment, names)
            await beside.settled()
            await beside.feed.finish_generation(environment)
    print_line(sdk_data(await _segments(settings, environment)))
    tell(f"give this to the SDKs, then take the old generation out: cohort-sync rebuild {names[0]} --sweep")


async def _segments(settings: Settings, environment: str) -> list[Segment]:
    async with postgres_reader(settings.postgres.url()) as reader:
        return await reader.segments(environment)


async def _begin(feed: ChangeFeed, environment: str, names: list[str]) -> None:
    try:
        await feed.begin_generation(environment, names)
    except GenerationKeptError:
        raise CommandError(
            f"the generation before is still kept in {', '.join(names)}: once no SDK asks for it, take it out with "
            f"cohort-sync rebuild {names[0]} --sweep"
        ) from None
