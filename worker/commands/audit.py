"""`cohort-sync audit`, and what it shares with `rebuild`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import click

from stores.postgres.change_feed import ChangeFeed
from worker.audit import Audit, Difference, Fault
from worker.commands.frame import REJECTED, CommandError, json_option, with_settings
from worker.commands.output import Advance, print_json, print_line, progress, tell
from worker.config.problems import did_you_mean
from worker.health import Health
from worker.projecting import projection_of, target_of
from worker.projection_metrics import ProjectionMetrics
from worker.projector import Projector, until_caught_up
from worker.settings import ProjectionSettings, Settings

SETTLE_S = 3_600.0
"""A rebuild of hundreds of millions of memberships takes less."""


class RepairedDrift(NamedTuple):
    """How many differences there were, all of them put right."""

    missing: int
    extra: int


@click.command("audit")
@click.argument("target")
@click.option("--repair", is_flag=True, help="Put right what differs.")
@json_option
@with_settings
def command(settings: Settings, *, target: str, repair: bool, as_json: bool) -> int:
    """Compares a projection with PostgreSQL, while changes go on.

    TARGET is the name of a projection. A difference is somebody who is in and does not stand in the target (missing),
    or the other way round (extra). Contexts are named as the target names them: base64 of SHA-256 of the key. What only
    is on its way is no difference. The exit status is 3 if anything differs and was not repaired.

    \b
    Examples:
      cohort-sync audit sdk
      cohort-sync audit sdk --repair --json
    """  # noqa: D301 - click's mark for text that it must not wrap
    found = asyncio.run(_audit(settings, projection_named(settings, target), repair=repair, as_json=as_json))
    tell(f"{found:,} differences" + (", all put right" if repair and found else ""))
    return REJECTED if found and not repair else 0


def projection_named(settings: Settings, name: str) -> ProjectionSettings:
    """The projection of this name. Where there is none it is wrong usage."""
    for projection in settings.projections:
        if projection.name == name:
            return projection
    names = [projection.name for projection in settings.projections]
    if not names:
        raise click.UsageError("the configuration has no projections")
    raise click.UsageError(f"there is no projection {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}")


async def repaired(
    settings: Settings, projection: ProjectionSettings, advance: Advance, *, from_the_start: bool
) -> RepairedDrift:
    """Puts right what differs, if asked after all was applied again. Returns once the target is right."""
    missing = extra = 0
    async with _auditing(settings, projection) as (audit, feed):
        if from_the_start:
            await feed.apply_again([projection.name])
            await _settled(feed, projection.name)
        async for page in audit.differences():
            advance()
            missing += sum(each.fault is Fault.MISSING for each in page)
            extra += sum(each.fault is Fault.EXTRA for each in page)
            if page:
                await audit.repair(page)
        await _settled(feed, projection.name)
    return RepairedDrift(missing, extra)


async def _audit(settings: Settings, projection: ProjectionSettings, *, repair: bool, as_json: bool) -> int:
    found = 0
    with progress(f"auditing {projection.name}", None) as advance:
        async with _auditing(settings, projection) as (audit, feed):
            async for page in audit.differences():
                advance()
                found += len(page)
                for each in page:
                    _show(each, as_json=as_json)
                if page and repair:
                    await audit.repair(page)
            if found and repair:
                await _settled(feed, projection.name)
    return found


def _show(difference: Difference, *, as_json: bool) -> None:
    segment, generation, context = difference.reference
    if as_json:
        print_json({"difference": difference.fault, "segment": segment, "generation": generation, "context": context})
    else:
        print_line(f"{difference.fault}: {context} in {segment}.g{generation}")


@asynccontextmanager
async def _auditing(settings: Settings, projection: ProjectionSettings) -> AsyncIterator[tuple[Audit, ChangeFeed]]:
    """An audit, and a projector beside it: where none runs elsewhere, this one applies what is to be applied."""
    metrics, health = ProjectionMetrics([projection.name]), Health(())
    async with ChangeFeed(settings.postgres.url()) as feed, target_of(projection) as target:
        await feed.require_schema()
        said = projection_of(settings, projection)
        projector = Projector(said, feed=feed, target=target, metrics=metrics, health=health)
        projecting = asyncio.create_task(projector.run())
        try:
            yield (
                Audit(feed, target, said.environment, lambda: _settled(feed, projection.name)),
                feed,
            )
        finally:
            projecting.cancel()
            with suppress(asyncio.CancelledError):
                await projecting


async def _settled(feed: ChangeFeed, name: str) -> None:
    try:
        async with asyncio.timeout(SETTLE_S):
            await until_caught_up(feed, Health(()), [name])
    except TimeoutError:
        raise CommandError(
            f"{name} did not catch up within {SETTLE_S:,.0f} s: `cohort-sync status` says why it is behind"
        ) from None
