"""`cohort-sync migrate`: brings the schema up to date."""

from __future__ import annotations

import asyncio
from typing import get_args

import click

from stores.postgres.migrating import Part, grant, migrate, missing_migrations
from worker.commands.frame import FAILED, OK, json_option, with_settings
from worker.commands.output import print_json, print_line
from worker.settings import Settings


@click.command("migrate")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if something is to do.")
@click.option("--pre", is_flag=True, help="Only what older versions can run with: for before a rollout.")
@click.option(
    "--grant",
    "grants",
    type=(click.Choice(get_args(Part)), str),
    multiple=True,
    metavar="PART ROLE",
    help="Then let this role do what this part needs: worker, projector, gateway or operator.",
)
@json_option
@with_settings
def command(settings: Settings, *, check: bool, pre: bool, grants: tuple[tuple[Part, str], ...], as_json: bool) -> int:
    """Brings the database's schema up to date.

    It is safe to run twice, and side by side: runs wait for each other. With --json there is an object for each
    migration: {"migration", "applied"}, and for each grant: {"grant"}.

    A migration with `post` in its name needs that no older version runs any more. While one does, as before a rollout,
    leave those out with --pre, and migrate again afterwards. This version also runs before they are applied.

    Those who run cohort-sync need not own the tables. With --grant a role gets what its part needs, and nothing else;
    give it with each migration, since new tables need new grants. `operator` is for the other commands.

    \b
    Examples:
      cohort-sync migrate
      cohort-sync migrate --grant worker cohort_worker --grant gateway cohort_gateway
      cohort-sync migrate --check || echo "the database is behind this version"
      cohort-sync migrate --pre   # then replace what runs, then: cohort-sync migrate
    """  # noqa: D301 - click's mark for text that it must not wrap
    if check and grants:
        raise click.UsageError("--check changes nothing: leave out --grant")
    url = settings.postgres.url()
    names = asyncio.run(missing_migrations(url, only_pre=pre) if check else migrate(url, only_pre=pre))
    statements = [statement for part, role in grants for statement in asyncio.run(grant(url, part, role))]
    if as_json:
        print_json(*({"migration": name, "applied": not check} for name in names))
        print_json(*({"grant": statement} for statement in statements))
    else:
        for name in names:
            print_line(f"{name}: {'is to be applied' if check else 'applied'}")
        if not names:
            print_line("the schema is up to date")
        for statement in statements:
            print_line(statement)
    return FAILED if check and names else OK
