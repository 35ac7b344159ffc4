"""`cohort-sync migrate`: brings the schema up to date."""

from __future__ import annotations

import asyncio

import click

from stores.postgres.migrating import migrate, missing_migrations
from worker.commands.frame import FAILED, OK, json_option, with_settings
from worker.commands.output import print_json, print_line
from worker.settings import Settings


@click.command("migrate")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if something is to do.")
@json_option
@with_settings
def command(settings: Settings, *, check: bool, as_json: bool) -> int:
    """Brings the database's schema up to date.

    It is safe to run twice, and side by side: runs wait for each other. With --json there is an object for each
    migration: {"migration", "applied"}.

    \b
    Examples:
      cohort-sync migrate
      cohort-sync migrate --check || echo "the database is behind this version"
    """  # noqa: D301 - click's mark for text that it must not wrap
    url = settings.postgres.url()
    names = asyncio.run(missing_migrations(url) if check else migrate(url))
    if as_json:
        print_json(*({"migration": name, "applied": not check} for name in names))
    else:
        for name in names:
            print_line(f"{name}: {'is to be applied' if check else 'applied'}")
        if not names:
            print_line("the schema is up to date")
    return FAILED if check and names else OK
