"""`cohort-sync audit`, and what it shares with `rebuild`."""

from __future__ import annotations

import asyncio

import click

from worker.audit import Audit, Difference
from worker.commands.frame import REJECTED, json_option, with_settings
from worker.commands.output import print_json, print_line, progress, tell
from worker.commands.projecting_beside import Beside, projecting
from worker.config.problems import did_you_mean
from worker.projecting import projection_of
from worker.projector import Projection
from worker.settings import ProjectionSettings, Settings


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


def audit_of(beside: Beside, projection: Projection) -> Audit:
    """The audit of a target that the projectors beside keep in step."""
    return Audit(beside.feed, beside.targets[projection.name], projection.environment, beside.settled)


async def _audit(settings: Settings, projection: ProjectionSettings, *, repair: bool, as_json: bool) -> int:
    found = 0
    with progress(f"auditing {projection.name}", None) as advance:
        async with projecting(settings, [projection]) as beside:
            audit = audit_of(beside, projection_of(settings, projection))
            async for page in audit.differences():
                advance()
                found += len(page)
                for each in page:
                    _show(each, as_json=as_json)
                if page and repair:
                    await audit.repair(page)
            if found and repair:
                await beside.settled()
    return found


def _show(difference: Difference, *, as_json: bool) -> None:
    segment, generation, context = difference.reference
    if as_json:
        print_json({"difference": difference.fault, "segment": segment, "generation": generation, "context": context})
    else:
        print_line(f"{difference.fault}: {context} in {segment}.g{generation}")
