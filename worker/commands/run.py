"""`cohort-sync run`: the worker itself."""

from __future__ import annotations

import asyncio

import click

from worker.commands.frame import with_settings
from worker.settings import Settings


@click.command("run")
@click.option(
    "--until-caught-up", is_flag=True, help="Stop with 0 once everything that was there at the start is stored."
)
@with_settings
def command(settings: Settings, *, until_caught_up: bool) -> None:
    """Runs the worker: from the feeds into PostgreSQL.

    It runs until SIGTERM or SIGINT, which let it finish what it has begun. Logs go to standard error; what it is doing
    is at http://127.0.0.1:9400/readyz and /metrics (settings http.host and http.port).

    \b
    Examples:
      cohort-sync run
      cohort-sync run --until-caught-up --config job.yaml    # for jobs and tests

    With --until-caught-up it ends with 0 also where records were rejected: see `cohort-sync dead-letters list`.
    """  # noqa: D301 - click's mark for text that it must not wrap
    # Here, as the other commands need none of it.
    import uvloop  # noqa: PLC0415

    from worker.app import run_worker  # noqa: PLC0415
    from worker.logs import setup_logging  # noqa: PLC0415

    setup_logging(format=settings.logging.format, level=settings.logging.level)
    try:
        uvloop.run(run_worker(settings, until_caught_up=until_caught_up))
    except asyncio.CancelledError:
        # A signal came before there was anything to finish.
        return
