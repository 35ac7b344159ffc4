"""`cohort-sync project`: the projectors."""

from __future__ import annotations

import asyncio

import click

from stores.postgres.change_feed import ChangeFeed, StillLedError
from worker.commands.frame import CommandError, with_settings
from worker.commands.output import print_line
from worker.settings import Settings


@click.command("project")
@click.option("--until-caught-up", is_flag=True, help="Stop with 0 once all that is committed now is in every target.")
@click.option("--create-table", is_flag=True, help="First make the tables in DynamoDB that are not there.")
@click.option("--forget", metavar="NAME", help="Only forget a projection that is no longer configured.")
@with_settings
def command(settings: Settings, *, until_caught_up: bool, create_table: bool, forget: str | None) -> None:
    """Copies committed memberships to the stores that the LaunchDarkly SDKs read.

    The targets are `projections` in the configuration. Several processes may run: one leads each projection, and
    another takes over within 10 seconds when it is gone. It runs until SIGTERM or SIGINT.

    A projection that was retired or renamed stays known, so that `erase` can say that it was not reached. --forget
    ends that; what its target holds is left as it is, for you to take away.

    \b
    Examples:
      cohort-sync project
      cohort-sync project --create-table       # DynamoDB, billed by request
      cohort-sync project --until-caught-up    # for jobs and tests
      cohort-sync project --forget old-sdk
    """  # noqa: D301 - click's mark for text that it must not wrap
    # Here, as the other commands need none of it.
    import uvloop  # noqa: PLC0415

    from worker.logs import setup_logging  # noqa: PLC0415
    from worker.projecting import run_projectors  # noqa: PLC0415

    if forget is not None:
        if forget in (projection.name for projection in settings.projections):
            raise click.UsageError(f"{forget} is still configured: take it out of `projections` first")
        asyncio.run(_forget(settings, forget))
        return
    if not settings.projections:
        raise click.UsageError(
            "there is nothing to project: add a projection to the configuration, as in\n"
            "  projections:\n"
            "    - {name: sdk, type: redis, environment: production, url: redis://127.0.0.1:6379/0}"
        )
    setup_logging(format=settings.logging.format, level=settings.logging.level)
    uvloop.run(run_projectors(settings, until_applied=until_caught_up, create_tables=create_table))


async def _forget(settings: Settings, name: str) -> None:
    async with ChangeFeed(settings.postgres.url()) as feed:
        await feed.require_schema()
        try:
            was_known = await feed.forget(name)
        except StillLedError:
            raise CommandError(f"a projector still leads {name}: stop the processes that have it configured") from None
    if not was_known:
        raise CommandError(f"no projection {name} is known")
    print_line(f"{name} is forgotten; what its target holds is as it was")
