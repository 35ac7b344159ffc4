"""`cohort-sync erase`: a person goes, and stays away."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click

from consumers.errors import KafkaUnavailableError
from consumers.inspection import Retention, kafka_inspector
from stores.postgres.erasing import ErasedMembership, postgres_erasures
from stores.target import context_reference
from worker.commands.frame import FAILED, OK, json_option, with_address, with_settings
from worker.commands.output import print_json, print_line, print_table, progress, rfc3339, tell
from worker.commands.projecting_beside import projecting
from worker.settings import Settings

STANDARD_INPUT = "-"
LONGEST_KEY_BYTES = 8_192


class Evidence:
    """What was removed where, and what is left of it, told as it becomes so."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def begins(self, erased_at: datetime, memberships: Sequence[ErasedMembership]) -> None:
        """From then on nothing brings the person in; these are to be removed."""
        at = rfc3339(erased_at)
        if self._as_json:
            print_json({"kind": "erasure", "erased_at": at, "left": "salted_hash"})
        else:
            print_line(f"erased: no record brings this person in since {at}; a salted hash is left")
        _show_memberships(memberships, as_json=self._as_json)
        sys.stdout.flush()

    def emptied(self, name: str) -> None:
        """The target of this projection holds nothing of the person any more."""
        if self._as_json:
            print_json({"kind": "projection", "projection": name, "left": None})
        else:
            print_line(f"projection {name} holds nothing of this person any more")

    def unreached(self, name: str) -> None:
        """PostgreSQL knows this projection and the configuration does not."""
        if self._as_json:
            print_json({"kind": "projection", "projection": name, "left": "unknown"})
        else:
            print_line(f"projection {name} was not reached, and may hold this person")
        tell(
            f"projection {name} is not in this configuration: erase again with one that has it, or, if it is no more, "
            f"take what its target holds away and run cohort-sync project --forget {name}"
        )

    def kept(self, topics: Sequence[Retention]) -> None:
        """What Kafka may still hold, and when the last of it is gone."""
        if self._as_json:
            for each in topics:
                until = rfc3339(_until(each))
                print_json(
                    {"kind": "topic", "topic": each.topic, "cleanup_policy": each.cleanup_policy, "until": until}
                )
            return
        print_line("\nWhat these topics hold of this person is not shown or sent again, and is gone at the latest:")
        rows = [(each.topic, rfc3339(_until(each)) or "never", each.cleanup_policy) for each in topics]
        print_table(("topic", "gone by", "cleanup policy"), rows)

    def not_known(self, cause: str) -> None:
        """Kafka does not say what it may still hold."""
        if self._as_json:
            print_json({"kind": "topic", "topic": None, "cleanup_policy": None, "until": "unknown"})
        else:
            print_line("\nWhat Kafka holds of this person is not shown or sent again; until when it does is not known")
        tell(f"until when topics keep records is not known: {cause}. Erasing again tells it")


def _until(retention: Retention) -> datetime | None:
    """When the last of its records is gone; None where nothing says that it ever is."""
    if retention.at_most_ms is None:
        return None
    return datetime.now(UTC) + timedelta(milliseconds=retention.at_most_ms)


@click.command("erase")
@click.argument("context_key")
@click.option("--dry-run", is_flag=True, help="Only tell which memberships would be removed.")
@click.option("--lift", is_flag=True, help="Let somebody who was erased come in again, by records from now on.")
@json_option
@with_settings
def command(settings: Settings, *, context_key: str, dry_run: bool, lift: bool, as_json: bool) -> int:
    """Removes a person from every segment and every projection, and keeps them out.

    CONTEXT_KEY is meant in all environments and context kinds; - reads it from standard input, so that it stands in no
    process list. All that is left is a salted hash, by which writers drop whatever any record, new or replayed, says of
    this person, until --lift. What Kafka still holds can't be taken out of a log: it is never shown or sent again, and
    the printed evidence says until when retention keeps it at most. The tool that sends the cohort has to forget the
    person too.

    It can be repeated, also where it was interrupted. Where a target is away, it waits for it.

    \b
    Examples:
      cohort-sync erase alan@example.com --dry-run
      cohort-sync erase - --json < key.txt > evidence.jsonl
    """  # noqa: D301 - click's mark for text that it must not wrap
    if dry_run and lift:
        raise click.UsageError("--dry-run and --lift don't go together")
    key = _checked(_from_standard_input() if context_key == STANDARD_INPUT else context_key)
    if lift:
        lifted = asyncio.run(_lift(settings, key))
        tell("lifted: records bring this person in again" if lifted else "this person was not erased")
        return OK
    if dry_run:
        _show_memberships(asyncio.run(_memberships(settings, key)), as_json=as_json)
        return OK
    return asyncio.run(_erase(settings, key, Evidence(as_json=as_json)))


def _from_standard_input() -> str:
    text = sys.stdin.read(LONGEST_KEY_BYTES + 2).rstrip("\r\n")
    if "\n" in text or text.startswith("\ufeff"):
        raise click.BadParameter("standard input should hold one key, in one line", param_hint="CONTEXT_KEY")
    return text


def _checked(key: str) -> str:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8", param_hint="CONTEXT_KEY") from None
    if not key.strip() or size > LONGEST_KEY_BYTES:
        raise click.BadParameter("a blank or overlong one is nobody's", param_hint="CONTEXT_KEY")
    return key


async def _lift(settings: Settings, key: str) -> bool:
    async with postgres_erasures(settings.postgres.url()) as erasures:
        return await erasures.lift(key)


async def _memberships(settings: Settings, key: str) -> list[ErasedMembership]:
    async with postgres_erasures(settings.postgres.url()) as erasures:
        return await erasures.memberships(key)


async def _erase(settings: Settings, key: str, evidence: Evidence) -> int:
    """Tells of each step once it is done, so that nothing is lost where it is interrupted."""
    async with (
        projecting(settings, settings.projections) as beside,
        postgres_erasures(settings.postgres.url()) as erasures,
    ):
        with progress("erasing", None):
            evidence.begins(await erasures.bar(key), await erasures.memberships(key))
            await erasures.put_out(key)
            for name, target in beside.targets.items():
                tell(f"waiting until projection {name} has applied it")
                await beside.settled(name)
                # Old generations too, and what others put there.
                await target.forget(context_reference(key))
                evidence.emptied(name)
            await erasures.delete(key)
        known = [state.name for state in await beside.feed.projections()]
    unreached = [name for name in known if name not in beside.targets]
    for name in unreached:
        evidence.unreached(name)
    try:
        async with kafka_inspector(settings.kafka.connection()) as kafka:
            evidence.kept(await kafka.retention(settings.feed_list(), settings.kafka.dead_letter_topic))
    except KafkaUnavailableError as exc:
        evidence.not_known(with_address(exc, settings))
        return FAILED
    return FAILED if unreached else OK


def _show_memberships(memberships: Sequence[ErasedMembership], *, as_json: bool) -> None:
    if as_json:
        print_json(*({"kind": "membership", **each._asdict()} for each in memberships))
    elif memberships:
        print_table(("environment", "segment", "kind", "was in"), memberships)
    else:
        print_line("PostgreSQL holds no membership of this person")
