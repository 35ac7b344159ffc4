"""`cohort-sync copy`: an environment from another cell into this one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from consumers.feeds import Environments, Feed
from stores.postgres.change_feed import ChangeFeed
from stores.postgres.copying import environment_copy
from worker.commands.frame import json_option, with_settings
from worker.commands.output import print_json, print_table, progress, tell
from worker.config import load
from worker.freshness import stored_up_to
from worker.settings import Settings

LOOK_EVERY_S = 1.0


@click.command("copy")
@click.argument("environment")
@click.option(
    "--from",
    "their_config",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration of the cell that has it now.",
)
@json_option
@with_settings
def command(settings: Settings, *, environment: str, their_config: Path, as_json: bool) -> None:
    """Copies an environment from another cell's store into this one's.

    First add it to this cell's `environments` and start its workers anew. What has arrived before that is copied, once
    the other cell has stored all of it; what arrives later this cell's own workers read. Both cells go on meanwhile,
    and copying once more changes nothing. When it is done, take the projection out of the other cell, and start it in
    this one.

    Access tokens and the list of rejected members stay where they are. With --json there is an object for each segment:
    {"segment", "memberships"}, those of leavers counted too.

    \b
    Examples:
      cohort-sync copy production --from old-cell.yaml
    """  # noqa: D301 - click's mark for text that it must not wrap
    listed = Environments(settings.environment_list())
    if listed.find(environment) != environment:
        raise click.UsageError(
            f"{environment!r} is none of this cell's environments: add it, and start its workers anew before you copy"
        )
    theirs = load(their_config, {})  # the variables of this process are about this cell
    if theirs.postgres.url() == settings.postgres.url():
        raise click.UsageError(f"{their_config} leads to this cell's own database: nothing is to be copied")
    copied = asyncio.run(_copy(settings, theirs, environment))
    if as_json:
        print_json(*({"segment": key, "memberships": count} for key, count in copied))
    else:
        print_table(("segment", "memberships"), [(key, f"{count:,}") for key, count in copied])


async def _copy(settings: Settings, theirs: Settings, environment: str) -> list[tuple[str, int]]:
    copied = []
    dsns = {"theirs": theirs.postgres.url(), "ours": settings.postgres.url()}
    async with ChangeFeed(dsns["theirs"]) as feed, environment_copy(**dsns) as copy:
        await copy.erasures()
        await _until_stored(feed, environment, theirs.feed_list())
        with progress(f"copying {environment}", None) as advance:
            async for segment in copy.segments(environment):
                copied.append(segment)
                advance()
    return copied


async def _until_stored(feed: ChangeFeed, environment: str, feeds: Sequence[Feed]) -> None:
    """Until they have stored all that has arrived by now."""
    asked_at = (position := await feed.position(environment)).at
    told = ""
    while True:
        until, why = stored_up_to(position.stored_up_to, feeds)
        if until is not None and until > asked_at:
            return
        if why != told:
            tell(f"waiting for the other cell: {why}")
            told = why
        await asyncio.sleep(LOOK_EVERY_S)
        position = await feed.position(environment)
