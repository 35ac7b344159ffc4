"""`cohort-sync tokens`: who may send to the gateway."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

import click

from stores.postgres.tokens import StoredToken, TokenInForce, token_admin
from worker.commands.frame import CommandError, json_option, with_settings
from worker.commands.output import print_json, print_line, print_table, rfc3339, tell
from worker.config.problems import did_you_mean
from worker.gateway.policies import ROLES, PolicyError, parse_policy
from worker.gateway.tokens import new_token
from worker.settings import Settings

LONGEST_NAME = 200
POLICY_BYTES = 262_144


@click.group("tokens")
def command() -> None:
    """Makes, lists and revokes the access tokens of the gateway.

    \b
    Examples:
      cohort-sync tokens create --name "Amplitude, production" --policy policy.json
      cohort-sync tokens create --name "Segment source" --role writer --feed engage    # a write key
      cohort-sync tokens list
      cohort-sync tokens revoke mfrggzdfmztwq2lk
    """  # noqa: D301 - click's mark for text that it must not wrap


@command.command("create")
@click.option("--name", required=True, metavar="N", help="What people call it.")
@click.option("--policy", "policy_file", metavar="FILE", type=click.File("rb"), help="A JSON list of statements.")
@click.option("--role", type=click.Choice(sorted(ROLES)), help="A policy that is ready made: writer may do everything.")
@click.option("--feed", metavar="F", help="Only for this feed: a write key, as Segment's tracking API takes it.")
@json_option
@with_settings
def create(  # noqa: PLR0913 - click's options
    settings: Settings, *, name: str, policy_file: BinaryIO | None, role: str | None, feed: str | None, as_json: bool
) -> None:
    """Makes a token and shows it, once: only a hash of it is kept.

    A policy is a JSON list of statements as LaunchDarkly writes them. To sync segments a token needs createSegment and
    updateIncluded on them, and to read them over REST viewProject on their project:

    \b
      [{"effect": "allow", "resources": ["proj/*:env/production:segment/amplitude-*"],
        "actions": ["createSegment", "updateIncluded"]}]

    \b
    Examples:
      cohort-sync tokens create --name "Amplitude, production" --policy policy.json
      cohort-sync tokens create --name "Segment source" --role writer --feed engage

    With --json: {"id", "name", "token"}.
    """  # noqa: D301 - click's mark for text that it must not wrap
    name = _checked_name(name)
    policy = _policy(policy_file, role)
    if feed is not None:
        feeds = [each.name for each in settings.feeds]
        if feed not in feeds:
            raise click.UsageError(f"there is no feed {feed!r}{did_you_mean(feed, feeds)}")
    token = new_token()
    kept = TokenInForce(token.id, token.sha256, policy, feed)
    asyncio.run(_create(settings, kept, name, role))
    if as_json:
        print_json({"id": token.id, "name": name, "token": token.text})
        return
    tell("this is the only time that it is shown:")
    print_line(token.text)


@command.command("list")
@json_option
@with_settings
def list_tokens(settings: Settings, *, as_json: bool) -> None:
    """Shows all tokens, revoked ones too, with when each was last used, to the minute.

    \b
    Example:
      cohort-sync tokens list --json | jq -r 'select(.last_used_at == null) | .id'
    """  # noqa: D301 - click's mark for text that it must not wrap
    tokens = asyncio.run(_list(settings))
    if as_json:
        print_json(*map(_row, tokens))
    elif tokens:
        columns = ("id", "name", "role", "feed", "created", "last used", "revoked")
        print_table(
            columns,
            [
                (
                    each.id,
                    each.name,
                    each.role or "policy",
                    each.feed,
                    *map(rfc3339, (each.created_at, each.last_used_at, each.revoked_at)),
                )
                for each in tokens
            ],
        )
    else:
        tell("there are no tokens yet: `cohort-sync tokens create --help`")


@command.command("revoke")
@click.argument("token_id", metavar="ID")
@with_settings
def revoke(settings: Settings, *, token_id: str) -> None:
    """Ends a token: within two seconds no gateway takes it any more.

    \b
    Example:
      cohort-sync tokens revoke mfrggzdfmztwq2lk
    """  # noqa: D301 - click's mark for text that it must not wrap
    name = asyncio.run(_revoke(settings, token_id))
    if name is None:
        raise CommandError(f"there is no token {token_id!r}: `cohort-sync tokens list` shows all")
    print_line(f"{token_id} ({name}) is revoked")


def _checked_name(name: str) -> str:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise click.UsageError(f"--name should be readable text of at most {LONGEST_NAME} characters")
    return name.strip()


def _policy(file: BinaryIO | None, role: str | None) -> str:
    if (file is None) == (role is None):
        raise click.UsageError("say what the token may do: either --policy FILE or --role writer")
    if file is None:
        return ROLES[role or ""]
    document = file.read(POLICY_BYTES + 1)
    if len(document) > POLICY_BYTES:
        raise click.UsageError(f"--policy: the file is larger than {POLICY_BYTES:,} bytes")
    try:
        parse_policy(document)
        return document.decode()
    except (PolicyError, UnicodeDecodeError) as exc:
        raise click.UsageError(f"--policy can't be used: {exc}") from None


def _row(token: StoredToken) -> dict[str, object]:
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "feed": token.feed,
        "created_at": rfc3339(token.created_at),
        "last_used_at": rfc3339(token.last_used_at),
        "revoked_at": rfc3339(token.revoked_at),
    }


async def _create(settings: Settings, token: TokenInForce, name: str, role: str | None) -> None:
    async with token_admin(settings.postgres.url()) as admin:
        await admin.create(token, name=name, role=role)


async def _list(settings: Settings) -> list[StoredToken]:
    async with token_admin(settings.postgres.url()) as admin:
        return await admin.tokens()


async def _revoke(settings: Settings, token_id: str) -> str | None:
    async with token_admin(settings.postgres.url()) as admin:
        return await admin.revoke(token_id)
