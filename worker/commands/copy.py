"""`cohort-sync copy`: an environment from another cell into this one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from consumers.errors import KafkaUnavailableError
from consumers.feeds import Environments
from consumers.inspection import KafkaInspector, kafka_inspector
from stores.postgres.copying import CopiedSegment, environment_copy
from worker.commands.frame import CommandError, json_option, with_address, with_settings
from worker.commands.output import print_json, print_table, progress, tell
from worker.config import load
from worker.settings import Settings, environment_of

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
    the other cell has stored all of it; what arrives later this cell's own workers read. It waits until no worker is in
    this cell's group that was started with other `environments`. Both cells go on meanwhile.

    Until it has come to its end, no projector of this cell takes the environment. Copying again is always possible, and
    brings what people have changed in the other cell since, such as generations. When it is done, take the projection
    out of the other cell, copy once more if anybody has, and start it in this one.

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
    segments = asyncio.run(_copy(settings, theirs, environment))
    copied = [(each.key, each.memberships) for each in segments if each.their_kind is None]
    if as_json:
        print_json(*({"segment": key, "memberships": count} for key, count in copied))
    else:
        print_table(("segment", "memberships"), [(key, f"{count:,}") for key, count in copied])
    if refused := [each for each in segments if each.their_kind is not None]:
        raise CommandError("\n".join(map(_of_another_kind, refused)))


async def _copy(settings: Settings, theirs: Settings, environment: str) -> list[CopiedSegment]:
    segments = []
    projections = [each.name for each in settings.projections if environment_of(settings, each) == environment]
    dsns = {"theirs": theirs.postgres.url(), "ours": settings.postgres.url()}
    async with environment_copy(environment, **dsns, projections=projections) as copy:
        known = {*await copy.environments(), *(each.key for each in theirs.environment_list())}
        if environment not in known:
            has = ", ".join(sorted(known)) or "none yet"
            raise click.UsageError(f"the other cell has no environment {environment!r}; it has {has}")
        await copy.begin()
        await copy.erasures()
        # In this order. Whatever a worker of ours has skipped, since it was started without the environment, was there
        # before it left the group, and so before the ends are asked for.
        await _until_ours_take_it(settings)
        await _until_theirs_have_stored(theirs)
        with progress(f"copying {environment}", None) as advance:
            async for segment in copy.segments():
                segments.append(segment)
                advance()
        if all(each.their_kind is None for each in segments):
            await copy.end()
    return segments


async def _until_ours_take_it(settings: Settings) -> None:
    """Until every member of our group was started with the environments of this configuration."""
    wanted, group = Environments(settings.environment_list()).fingerprint(), settings.kafka.group_id

    async def waits_for(kafka: KafkaInspector) -> str | None:
        sayings = await kafka.sayings(group)
        if sayings is None:
            return f"the group {group} is giving out its partitions"
        others = sum(saying != wanted for saying in sayings)
        return f"workers of the group {group} that have other `environments`: {others}" if others else None

    async with kafka_inspector(settings.kafka.connection()) as kafka:
        await _until_nothing(waits_for, kafka, "this cell")


async def _until_theirs_have_stored(theirs: Settings) -> None:
    """Until they have stored all that has arrived by now: offsets are committed when everything before is durable."""
    try:
        async with kafka_inspector(theirs.kafka.connection()) as kafka:
            ends = await kafka.ends(theirs.feed_list())

            async def waits_for(kafka: KafkaInspector) -> str | None:
                behind = await kafka.behind(theirs.kafka.group_id, ends)
                return f"{behind[0].topic}:{behind[0].partition} is not read to its end" if behind else None

            await _until_nothing(waits_for, kafka, "the other cell")
    except KafkaUnavailableError as exc:
        raise CommandError(f"of the other cell: {with_address(exc, theirs)}") from exc


async def _until_nothing(
    waits_for: Callable[[KafkaInspector], Awaitable[str | None]], kafka: KafkaInspector, whom: str
) -> None:
    told = None
    while (why := await waits_for(kafka)) is not None:
        if why != told:
            tell(f"waiting for {whom}: {why}")
            told = why
        await asyncio.sleep(LOOK_EVERY_S)


def _of_another_kind(segment: CopiedSegment) -> str:
    return (
        f"{segment.key} is of kind {segment.their_kind!r} there and {segment.kind!r} here, and was not copied: take "
        "the wrong one out of its database, as the runbook has it at `A segment of another kind`, and copy again"
    )
