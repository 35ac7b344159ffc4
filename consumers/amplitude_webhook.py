"""Amplitude's generic cohort webhook (Kinesis and Pub/Sub send the same): one cohort, one direction, many users.

A template of Amplitude's own makes it a list of users instead, each with a property that names the cohort; that is read
too. Templates are edited by people, so anything may arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec

from consumers import values
from consumers.amplitude_traits import INTEGRATION, TEMPLATE_PREFIX, cohort_in
from consumers.cohorts import cohort_of_record
from consumers.document import decode, member_list
from consumers.errors import Ignored, InvalidRecord, InvalidValue, Reason
from consumers.event_times import from_epoch_seconds
from consumers.feeds import Feed, Limits
from consumers.parsed import Changes, Collector, Parsed
from consumers.rules import Rules
from consumers.values import MISSING, properties_of
from stores.model import Cohort


class _User(msgspec.Struct, gc=False):
    user_id: str | int


class _Payload(msgspec.Struct, gc=False):
    """A payload whose users are all well formed; what else is in it is checked afterwards."""

    users: list[_User]
    cohort_id: Any = MISSING
    cohort_name: Any = MISSING
    in_cohort: Any = MISSING
    computed_time: Any = MISSING
    compute_time: Any = MISSING


_DECODER = msgspec.json.Decoder(_Payload, float_hook=float)


class _Heading(NamedTuple):
    """What a payload says about all of its users."""

    cohort: Cohort
    included: bool
    event_time_us: int | None


class AmplitudeWebhook:
    """The format `amplitude-webhook`."""

    name = "amplitude-webhook"

    def parse(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The changes of one record. What is promised is said at `consumers.formats.Format`."""
        return self.parse_columns(value, feed, rules) or self.parse_each(value, feed, rules)

    def parse_columns(self, value: bytes, feed: Feed, rules: Rules) -> Parsed | None:
        """The short way: all users at once, or None where they are not all good."""
        environment = rules.environment(MISSING, feed)
        try:
            payload = _DECODER.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
        keys = values.context_keys([user.user_id for user in payload.users], rules.limits.context_key_bytes)
        if not keys:
            return None
        heading = _heading(partial(getattr, payload), feed)
        return Parsed(
            environment=environment,
            context_kind=feed.context_kind,
            changes=[Changes(heading.cohort, heading.included, keys, range(len(keys)), heading.event_time_us)],
            members=len(keys),
        )

    def parse_each(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The long way, user by user, for any payload."""
        environment = rules.environment(MISSING, feed)
        document = decode(value)
        collector = Collector()
        if isinstance(document, list):
            members = document
            _collect_bodies(collector, members, rules.limits)
        elif isinstance(document, dict):
            members = member_list(document.get("users", MISSING), "/users")
            if members:
                _collect_users(collector, members, _heading(partial(_property, document), feed), rules.limits)
        else:
            raise InvalidRecord(Reason.PAYLOAD_INVALID, "the value is neither a JSON object nor a list")
        if not members:
            return Parsed(ignored=Ignored.NO_MEMBERS)
        return collector.parsed(environment=environment, context_kind=feed.context_kind, members=len(members))


def _heading(read: Callable[[str], object], feed: Feed) -> _Heading:
    named = read("cohort_id"), read("cohort_name"), MISSING
    return _Heading(
        cohort_of_record(INTEGRATION, feed, named, "/cohort_id"),
        values.membership(read("in_cohort"), "/in_cohort"),
        from_epoch_seconds(read("computed_time")) or from_epoch_seconds(read("compute_time")),
    )


def _property(document: dict[str, object], name: str) -> object:
    return document.get(name, MISSING)


def _collect_users(collector: Collector, users: list[object], heading: _Heading, limits: Limits) -> None:
    for place, user in enumerate(users):
        try:
            key = _context_key(user, limits)
        except InvalidValue as problem:
            collector.reject(place, problem.within(f"/users/{place}").about(heading.cohort))
        else:
            collector.add(place, heading.cohort, key, included=heading.included, event_time_us=heading.event_time_us)


def _collect_bodies(collector: Collector, bodies: list[object], limits: Limits) -> None:
    for place, body in enumerate(bodies):
        try:
            key = _context_key(body, limits)
            said = _memberships(body)
        except InvalidValue as problem:
            collector.reject(place, problem.within(f"/{place}").about(*(cohort for cohort, _ in _named_by(body))))
            continue
        for cohort, included in said:
            collector.add(place, cohort, key, included=included)


def _context_key(user: object, limits: Limits) -> str:
    if not isinstance(user, dict):
        raise InvalidValue(Reason.MEMBER_INVALID, "it is not an object")
    return values.context_key(user.get("user_id", MISSING), "/user_id", limits.context_key_bytes)


def _memberships(body: object) -> list[tuple[Cohort, bool]]:
    """Every cohort that a property of this body names, and whether its user is in."""
    named = _named_by(body)
    if not named:
        raise InvalidValue(Reason.COHORT_ID_MISSING, f"it has no property {TEMPLATE_PREFIX}<name>_<id>")
    return [(cohort, values.membership(value, f"its property {TEMPLATE_PREFIX}<name>_<id>")) for cohort, value in named]


def _named_by(body: object) -> list[tuple[Cohort, object]]:
    """Every cohort that a property of this body names, and what stands there."""
    return [
        (Cohort(INTEGRATION, named.cohort_id, values.cohort_name(named.name)), value)
        for name, value in properties_of(body).items()
        if name.startswith(TEMPLATE_PREFIX) and (named := cohort_in(name)) is not None
    ]
