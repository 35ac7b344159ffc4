"""The command line: `cohort-sync`, one file for each command.

To add a command, write `worker/commands/<name>.py` with a click command called `command`, whose docstring teaches
with an example, and name it in `COMMANDS`. `frame` gives it `--config`, `--json` and what happens on errors; `output`
prints. A command's file is imported only when it runs or is listed, so that none waits for the libraries of the others.
"""

from __future__ import annotations

from importlib import import_module

import click

from worker.config.problems import did_you_mean

COMMANDS = {
    "run": "run",
    "project": "project",
    "gateway": "gateway",
    "migrate": "migrate",
    "config": "config",
    "parse": "parse",
    "publish": "publish",
    "segments": "segments",
    "members": "members",
    "explain": "explain",
    "dead-letters": "dead_letters",
    "erase": "erase",
    "rebuild": "rebuild",
    "audit": "audit",
    "sdk-data": "sdk_data",
    "copy": "copy",
    "status": "status",
    "tokens": "tokens",
}
"""Each command and its module, in the order in which one meets them."""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in our order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of this name, or None."""
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"worker.commands.{COMMANDS[cmd_name]}").command
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but an unknown name is answered with the nearest one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"there is no command {name!r}{did_you_mean(name, list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cohort-sync", prog_name="cohort-sync", message="%(prog)s %(version)s")
def cli() -> None:
    """Keeps the cohorts that tools publish to Kafka as segments in PostgreSQL.

    \b
    A first tour:
      cohort-sync config check                      # is everything there that the configuration names?
      cohort-sync migrate                           # makes the tables
      cohort-sync publish --feed webhook in.jsonl   # sends records, one a line
      cohort-sync run --until-caught-up             # reads them all, and stops
      cohort-sync segments                          # what came of it
      cohort-sync explain amplitude-7khm89cz u1     # is u1 in, and which record said so?

    Every command reads the same configuration: --config FILE, else $COHORT_SYNC_CONFIG, else cohort-sync.yaml. Commands
    that show something take --json: then standard output has one JSON object a line and nothing else.

    Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 done but something was rejected.
    """  # noqa: D301 - click's mark for text that it must not wrap
