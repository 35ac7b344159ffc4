"""`cohort-sync parse`: what payloads would do, without Kafka or a database."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

import click

from consumers import manifest
from consumers.feeds import ContextKeyRule, Environments, Feed
from consumers.formats import Format, Formats
from consumers.mparticle import MParticle, is_identity_rule
from stores.model import DEFAULT_CONTEXT_KIND, is_context_kind
from worker.commands.frame import OK, REJECTED, config_option, json_option
from worker.commands.json_records import json_records
from worker.commands.output import progress, tell
from worker.commands.parse_fitting import fitting_integrations
from worker.commands.parse_outcome import JsonLines, Outcome, Rules, parse_lines
from worker.commands.parse_summary import Summary
from worker.config import CONFIG_VARIABLE, DEFAULT_PATH, load_settings
from worker.config.problems import did_you_mean

TOPIC = "parse"


@click.command("parse")
@click.option("--integration", required=True, metavar="NAME", help="The format of the payloads.")
@click.option(
    "--manifest",
    "manifest_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A LaunchDarkly integration manifest that says how to read them.",
)
@click.option("--environment", metavar="E", help="Used where a payload names none.")
@click.option("--context-kind", metavar="K", default=DEFAULT_CONTEXT_KIND, show_default=True, help="Likewise.")
@click.option(
    "--context-key",
    metavar="RULE",
    default=str(ContextKeyRule.USER_ID),
    show_default=True,
    help="Which identifier is the context key, as in feeds[].context_key.",
)
@click.option("--cohort-id", metavar="ID", help="For formats that carry none.")
@click.option("--cohort-name", metavar="NAME", help="Likewise.")
@json_option
@config_option
@click.argument("file", type=click.File("rb"))
def command(  # noqa: PLR0913 - the options of a feed, one by one
    file: BinaryIO,
    *,
    integration: str,
    manifest_file: Path | None,
    environment: str | None,
    context_kind: str,
    context_key: str,
    cohort_id: str | None,
    cohort_name: str | None,
    as_json: bool,
    config_file: Path | None,
) -> int:
    """Shows what the payloads in FILE would do: who joins or leaves which segment, what is rejected, and why.

    FILE has one JSON record a line, or is a single document; - is standard input. Neither Kafka nor a database is
    needed, and no configuration; where there is one, its limits, environments and manifests hold.

    \b
    Examples:
      cohort-sync parse --integration amplitude-webhook --environment production cohort.json
      cohort-sync parse --integration acme --manifest acme/manifest.json --json payloads.jsonl
      kcat -C -e -t audiences.engage | cohort-sync parse --integration segment --context-key user_id_or_email -

    With --json there is a line for each thing that would happen, with `record` for the zero-based line and `member` for
    the zero-based place in it. It exits with 3 when anything was rejected.
    """  # noqa: D301 - click's mark for text that it must not wrap
    rules = _rules(config_file)
    formats = _formats(integration, manifest_file, rules)
    feed = Feed(
        name=TOPIC,
        format=integration,
        topics=(TOPIC,),
        environment=environment,
        context_kind=_checked_kind(context_kind),
        context_key=_checked_rule(context_key, integration),
        cohort_id=cohort_id,
        cohort_name=cohort_name,
    )
    reader = rules.reader(feed, formats)
    outcome: Outcome = JsonLines(sys.stdout.buffer) if as_json else Summary()
    with progress("parse", _size(file)) as advance:
        meaningless = parse_lines(json_records(file, rules.limits.record_bytes), reader, outcome, advance)
    is_rejected = outcome.finish()
    if meaningless and (advice := fitting_integrations(meaningless, feed, rules)):
        tell(advice)
    return REJECTED if is_rejected else OK


def _rules(config_file: Path | None) -> Rules:
    """Those of the configuration that every command would find. Only here there need not be one."""
    if config_file is None and not os.environ.get(CONFIG_VARIABLE) and not DEFAULT_PATH.exists():
        return Rules()
    settings = load_settings(config_file, os.environ)
    return Rules(
        settings.record_limits(),
        Environments(settings.environment_list()),
        settings.unknown_environment == "skip",
        settings.manifest_paths(),
    )


class _OneFormat(Formats):
    """The manifest that was named counts, whatever it is called."""

    def __init__(self, only: Format) -> None:
        self._only = only

    def find(self, name: str) -> Format | None:  # noqa: ARG002 - there is one answer
        return self._only


def _formats(integration: str, manifest_file: Path | None, rules: Rules) -> Formats:
    if manifest_file:
        return _OneFormat(manifest.load(manifest_file, integration=integration))
    formats = Formats(rules.manifests)
    if formats.find(integration) is None:
        hint = did_you_mean(integration, formats.names())
        raise click.BadParameter(f"{integration!r} is no integration{hint}", param_hint="--integration")
    return formats


def _checked_kind(name: str) -> str:
    if not is_context_kind(name):
        raise click.BadParameter(
            f"{name!r} is not a context kind: letters, digits, '.', '_' and '-', and neither 'kind' nor 'multi'",
            param_hint="--context-kind",
        )
    return name


def _checked_rule(rule: str, integration: str) -> str:
    takes_identity_types = integration.casefold() == MParticle.name
    if rule not in list(ContextKeyRule) and not (takes_identity_types and is_identity_rule(rule)):
        hint = did_you_mean(rule, list(ContextKeyRule))
        raise click.BadParameter(f"{rule!r} is no rule{hint}", param_hint="--context-key")
    return rule


def _size(file: BinaryIO) -> int | None:
    """How many bytes there will be, where that can be known."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
