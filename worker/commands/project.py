"""`cohort-sync project`: the projectors."""

from __future__ import annotations

import click

from worker.commands.frame import with_settings
from worker.settings import Settings


@click.command("project")
@click.option("--until-caught-up", is_flag=True, help="Stop with 0 once all that is committed now is in every target.")
@click.option("--create-table", is_flag=True, help="First make the tables in DynamoDB that are not there.")
@with_settings
def command(settings: Settings, *, until_caught_up: bool, create_table: bool) -> None:
    """Copies committed memberships to the stores that the LaunchDarkly SDKs read.

    The targets are `projections` in the configuration. Several processes may run: one leads each projection, and
    another takes over within 10 seconds when it is gone. It runs until SIGTERM or SIGINT.

    \b
    Examples:
      cohort-sync project
      cohort-sync project --create-table       # DynamoDB, billed by request
      cohort-sync project --until-caught-up    # for jobs and tests
    """  # noqa: D301 - click's mark for text that it must not wrap
    # Here, as the other commands need none of it.
    import uvloop  # noqa: PLC0415

    from worker.logs import setup_logging  # noqa: PLC0415
    from worker.projecting import run_projectors  # noqa: PLC0415

    if not settings.projections:
        raise click.UsageError(
            "there is nothing to project: add a projection to the configuration, as in\n"
            "  projections:\n"
            "    - {name: sdk, type: redis, environment: production, url: redis://127.0.0.1:6379/0}"
        )
    setup_logging(format=settings.logging.format, level=settings.logging.level)
    uvloop.run(run_projectors(settings, until_applied=until_caught_up, create_tables=create_table))
