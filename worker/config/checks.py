"""What is wrong between settings that are each fine.

Works on the values as they were read, so that these problems are told together with those of single values; what is not
of the right kind is left to the settings themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from consumers.feeds import ContextKeyRule
from consumers.formats import HEADER, known_integrations
from consumers.manifest import ManifestError
from consumers.mparticle import MParticle, is_identity_rule
from worker.config.problems import Location, Problem, did_you_mean
from worker.setting_types import manifests_in
from worker.settings import KafkaSettings

HEAP = "heap-inbound"
_NEEDED = {"redis": ("url", "url_file"), "dynamodb": ("table",)}
_ONLY_FOR = {
    **dict.fromkeys(("url", "url_file", "ssl_cafile", "ssl_certfile", "ssl_keyfile"), "redis"),
    **dict.fromkeys(("table", "region", "endpoint_url"), "dynamodb"),
}

Values = Mapping[str, object]


def check_together(values: Values, folder: Path) -> list[Problem]:
    """Every problem between settings, in the order of the file."""
    feeds = _entries(values, "feeds")
    formats, manifest_problems = _formats(values, folder)
    return [
        *_kafka(_section(values, "kafka")),
        *_postgres(_section(values, "postgres")),
        *manifest_problems,
        *_unique(feeds, "name"),
        *(problem for feed in feeds for problem in _feed(feed, formats)),
        *_topics(feeds, _section(values, "kafka")),
        *_environments(values),
        *_projections(values),
        *_gateway(_section(values, "gateway"), feeds),
    ]


class _Entry(NamedTuple):
    """One entry of a list of sections."""

    location: Location
    values: Values

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def texts(self, name: str) -> list[str]:
        value = self.values.get(name)
        return [item for item in value if isinstance(item, str)] if isinstance(value, (list, tuple)) else []


def _kafka(kafka: Values) -> Iterator[Problem]:
    protocol = kafka.get("security_protocol", "PLAINTEXT")
    here: Location = ("kafka",)
    if not isinstance(protocol, str):
        return
    if protocol.startswith("SASL"):
        if "sasl_username" not in kafka:
            yield Problem((*here, "sasl_username"), f"is missing: security_protocol {protocol} needs it")
        yield from _exactly_one(kafka, here, "sasl_password", "sasl_password_file")
    parts = {"sasl_": "SASL_SSL", "ssl_": "SSL or SASL_SSL"}
    for prefix, wanted in parts.items():
        used = [name for name in kafka if name.startswith(prefix) and name != "sasl_mechanism"]
        is_on = protocol.startswith("SASL") if prefix == "sasl_" else protocol.endswith("SSL")
        if used and not is_on and protocol in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT"):
            yield Problem((*here, used[0]), f"does nothing with security_protocol {protocol}: set that to {wanted}")
    if "ssl_keyfile" in kafka and "ssl_certfile" not in kafka:
        yield Problem((*here, "ssl_keyfile"), "needs ssl_certfile beside it")


def _postgres(postgres: Values) -> Iterator[Problem]:
    if postgres:
        yield from _exactly_one(postgres, ("postgres",), "dsn", "dsn_file")


def _formats(values: Values, folder: Path) -> tuple[list[str], list[Problem]]:
    """The names that a feed's format may have, and what is wrong with manifests."""
    given = values.get("manifests_dir")
    manifests = manifests_in(folder / Path(given).expanduser()) if isinstance(given, str) else ()
    formats, problems = {HEADER, *known_integrations()}, []
    for manifest in manifests:
        try:
            formats.update(known_integrations([manifest]))
        except ManifestError as exc:
            problems.append(Problem(("manifests_dir",), str(exc)))
    return sorted(formats), problems


def _feed(feed: _Entry, formats: list[str]) -> Iterator[Problem]:
    yield from _exactly_one(feed.values, feed.location, "topics", "topic_pattern")
    if feed.values.get("topics") == []:
        yield Problem((*feed.location, "topics"), "is empty: name at least one topic")
    name = feed.text("format")
    if name and name.casefold() not in map(str.casefold, formats):
        yield Problem((*feed.location, "format"), f"'{name}' is no integration{did_you_mean(name, formats)}")
    for secret in ("webhook_secret", "webhook_secret_file"):
        if secret in feed.values and (name or "").casefold() != HEAP:
            yield Problem((*feed.location, secret), f"is for format {HEAP}, the only one that is signed")
    if {"webhook_secret", "webhook_secret_file"} <= set(feed.values):
        yield Problem((*feed.location, "webhook_secret_file"), "is given beside webhook_secret: leave one out")
    rule = feed.text("context_key")
    takes_identity_types = name is not None and name.casefold() in (MParticle.name, HEADER)
    if rule and rule not in list(ContextKeyRule) and not (takes_identity_types and is_identity_rule(rule)):
        yield Problem((*feed.location, "context_key"), f"'{rule}' is no rule{did_you_mean(rule, list(ContextKeyRule))}")


def _topics(feeds: list[_Entry], kafka: Values) -> Iterator[Problem]:
    """A record must have one feed only, and dead letters must not come back as records."""
    owners: dict[str, Location] = {}
    for feed in feeds:
        for number, topic in enumerate(feed.texts("topics")):
            here = (*feed.location, "topics", number)
            other = owners.setdefault(topic, feed.location) if topic not in owners else owners[topic]
            if other != feed.location or feed.texts("topics").index(topic) < number:
                yield Problem(here, f"'{topic}' is already a topic of feeds[{other[1]}]: a topic belongs to one feed")
    default = KafkaSettings.model_fields["dead_letter_topic"].default
    dead_letters = str(kafka.get("dead_letter_topic", default))
    if dead_letters in owners:
        yield Problem((*owners[dead_letters], "topics"), "holds the dead letter topic, which no feed may read")
    for feed in feeds:
        yield from _matched_topics(feed, owners, dead_letters)


def _matched_topics(feed: _Entry, owners: Mapping[str, Location], dead_letters: str) -> Iterator[Problem]:
    try:
        pattern = re.compile(feed.text("topic_pattern") or "(?!)")
    except re.error:
        return
    here = (*feed.location, "topic_pattern")
    if pattern.fullmatch(dead_letters):
        yield Problem(here, f"matches the dead letter topic '{dead_letters}', which no feed may read")
    for topic, owner in owners.items():
        if owner != feed.location and pattern.fullmatch(topic):
            yield Problem(here, f"matches '{topic}', a topic of feeds[{owner[1]}]: a topic belongs to one feed")


def _environments(values: Values) -> Iterator[Problem]:
    environments = _entries(values, "environments")
    yield from _unique(environments, "key")
    yield from _unique(environments, "client_side_id")
    known = [key for entry in environments if (key := entry.text("key"))]
    also_known = {name for entry in environments if (name := entry.text("client_side_id"))}
    for user in (*_entries(values, "feeds"), *_entries(values, "projections")):
        name = user.text("environment")
        if known and name and name not in known and name not in also_known:
            here = (*user.location, "environment")
            yield Problem(here, f"'{name}' is not one of environments{did_you_mean(name, known)}")


def _projections(values: Values) -> Iterator[Problem]:
    projections = _entries(values, "projections")
    yield from _unique(projections, "name")
    yield from _one_target_each(projections)
    for projection in projections:
        kind = projection.text("type") or ""
        if needed := _NEEDED.get(kind):
            yield from _exactly_one(projection.values, projection.location, *needed)
            for name, only_for in _ONLY_FOR.items():
                if name in projection.values and only_for != kind:
                    yield Problem((*projection.location, name), f"is for type {only_for}, and this is {kind}")
        if (projection.text("url") or "").startswith("redis://"):
            for name in projection.values:
                if name.startswith("ssl_"):
                    yield Problem((*projection.location, name), "does nothing with redis://: set url to rediss://")


def _one_target_each(projections: list[_Entry]) -> Iterator[Problem]:
    """Two projectors would take each other's mark away and fill the target for ever."""
    seen: dict[tuple[str | None, ...], Location] = {}
    for projection in projections:
        where = tuple(map(projection.text, ("url", "url_file", "table", "region", "endpoint_url", "prefix")))
        if any(where) and seen.setdefault(where, projection.location) != projection.location:
            first = "[".join(map(str, seen[where])) + "]"
            yield Problem((*projection.location, "prefix"), f"is that of {first}, in the same place: give each its own")


def _gateway(gateway: Values, feeds: list[_Entry]) -> Iterator[Problem]:
    name = gateway.get("feed")
    names = [known for feed in feeds if (known := feed.text("name"))]
    if isinstance(name, str) and name not in names:
        yield Problem(("gateway", "feed"), f"'{name}' is no feed{did_you_mean(name, names)}")


def _exactly_one(values: Values, location: Location, *names: str) -> Iterator[Problem]:
    given = [name for name in names if name in values]
    if not given:
        yield Problem((*location, names[0]), "is missing" + "".join(f", or {name}" for name in names[1:]))
    for name in given[1:]:
        yield Problem((*location, name), f"is given beside {given[0]}: leave one out")


def _unique(entries: Iterable[_Entry], name: str) -> Iterator[Problem]:
    seen: dict[str, Location] = {}
    for entry in entries:
        value = entry.text(name)
        if value and seen.setdefault(value, entry.location) != entry.location:
            first = "[".join(map(str, seen[value])) + "]"
            yield Problem((*entry.location, name), f"'{value}' is also the {name} of {first}")


def _section(values: Values, name: str) -> Values:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _entries(values: Values, name: str) -> list[_Entry]:
    found = values.get(name)
    items = found if isinstance(found, list) else []
    return [_Entry((name, number), item) for number, item in enumerate(items) if isinstance(item, dict)]
