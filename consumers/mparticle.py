"""mParticle's audience messages: profiles, each with the audiences that it joined or left.

The only inverted shape: one profile changes in many audiences, so a member is a pair of profile and audience. Who the
profile is, is one of its identities; the feed's `context_key` says of which type. Identities may be hashed, and a hash
is no context key, unless the feed asks for it (`email:md5`). Source of the shape: the examples of mParticle's Firehose
SDK for Java.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from consumers import values
from consumers.actions import Action, ActionWords
from consumers.document import decode
from consumers.errors import Ignored, InvalidRecord, InvalidValue, Reason
from consumers.event_times import from_epoch_milliseconds
from consumers.feeds import ContextKeyRule, Feed, Limits
from consumers.parsed import Collector, Operation, Parsed
from consumers.rules import Rules
from consumers.values import MISSING, properties_of
from stores.model import Cohort

_CHANGES, _SUBSCRIPTION = "audience_membership_change_request", "audience_subscription_request"
_MEMBERSHIP = ActionWords(
    {"add": Action.ADD, "delete": Action.REMOVE, "remove": Action.REMOVE, "attribute_update": Action.IGNORE}
)
_LIFECYCLE = ActionWords(
    {"add": Action.IGNORE, "update": Action.IGNORE, "remove": Action.DRAIN, "delete": Action.DRAIN}
)

_IDENTITIES = ("user_identities", "device_identities", "partner_identities")
_MPID = "mpid"
_RAW = "raw"
_CUSTOMER = frozenset(("customer", "customer_id", "customerid"))
_CALLED_OTHERWISE = {str(ContextKeyRule.USER_ID): _CUSTOMER, "customer": _CUSTOMER, "customer_id": _CUSTOMER}
_OR = "_or_"


class MParticle:
    """The format `mparticle`."""

    name = "mparticle"

    def parse(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The changes of one record. What is promised is said at `consumers.formats.Format`."""
        environment = rules.environment(MISSING, feed)
        message = decode(value)
        if not isinstance(message, dict):
            raise InvalidRecord(Reason.PAYLOAD_INVALID, "the value is not a JSON object")
        kind = message.get("type")
        if not isinstance(kind, str):
            raise InvalidRecord(Reason.PAYLOAD_INVALID, "/type is missing or not a string")
        if kind == _CHANGES:
            return _changes(message, environment, feed, rules.limits)
        if kind == _SUBSCRIPTION:
            return _subscription(message, environment, feed)
        return Parsed(ignored=Ignored.NOT_AN_AUDIENCE, members=1)


def _changes(message: dict[str, object], environment: str | None, feed: Feed, limits: Limits) -> Parsed:
    profiles = message.get("user_profiles")
    if not profiles and (profiles is None or isinstance(profiles, list)):
        return Parsed(ignored=Ignored.NO_MEMBERS)  # mParticle tries out an address in this way
    if not isinstance(profiles, list):
        raise InvalidRecord(Reason.MEMBER_LIST_INVALID, "/user_profiles is not a list")
    time_us = from_epoch_milliseconds(message.get("timestamp_ms"))
    wanted = _identities_of_rule(feed.context_key)
    collector, place = Collector(), 0
    for index, profile in enumerate(profiles):
        pointer = f"/user_profiles/{index}"
        try:
            audiences = _audiences(profile)
        except InvalidValue as problem:
            collector.reject(place, problem.within(pointer))
            place += 1
            continue
        key = _context_key(properties_of(profile), wanted, limits)
        for number, audience in enumerate(audiences):
            try:
                action = _MEMBERSHIP.meaning(_of_object(audience, "action"), "/action")
                if action is not Action.IGNORE:
                    cohort = _cohort(audience, feed)
                    if isinstance(key, InvalidValue):
                        collector.reject(place, key.within(pointer))
                    else:
                        collector.add(place, cohort, key, included=action is Action.ADD, event_time_us=time_us)
            except InvalidValue as problem:
                collector.reject(place, problem.within(f"{pointer}/audiences/{number}"))
            place += 1
    parsed = collector.parsed(environment=environment, context_kind=feed.context_kind, members=place)
    if not parsed.changes and not parsed.rejects:
        return Parsed(ignored=Ignored.NO_MEMBERSHIP_CHANGE, members=place)
    return parsed


def _subscription(message: dict[str, object], environment: str | None, feed: Feed) -> Parsed:
    """The customer connected an audience, changed the connection, or ended it: then nobody of it is synced any more."""
    action = _LIFECYCLE.meaning(message.get("action"), "/action")
    if action is Action.IGNORE:
        return Parsed(ignored=Ignored.NO_MEMBERSHIP_CHANGE, members=1)
    drained = Operation(_cohort(message, feed), None, from_epoch_milliseconds(message.get("timestamp_ms")))
    return Parsed(environment=environment, context_kind=feed.context_kind, members=1, operation=drained)


def _audiences(profile: object) -> list[object]:
    if not isinstance(profile, dict):
        raise InvalidValue(Reason.MEMBER_INVALID, "it is not an object")
    audiences = profile.get("audiences")
    if audiences is not None and not isinstance(audiences, list):
        raise InvalidValue(Reason.MEMBER_LIST_INVALID, "/audiences is not a list")
    return audiences or []


def _cohort(named: object, feed: Feed) -> Cohort:
    properties = properties_of(named)
    audience_id = values.cohort_id(properties.get("audience_id", MISSING), "/audience_id")
    return Cohort(MParticle.name, audience_id, values.cohort_name(properties.get("audience_name")) or feed.cohort_name)


def _of_object(item: object, name: str) -> object:
    if not isinstance(item, dict):
        raise InvalidValue(Reason.MEMBER_INVALID, "it is not an object")
    return item.get(name)


class _Wanted(NamedTuple):
    """A kind of identity that may be the context key, by the names that mParticle has for it."""

    types: frozenset[str]
    encoding: str


@lru_cache
def _identities_of_rule(rule: str) -> Sequence[_Wanted]:
    """What the feed asks for, in order: `customer`, `user_id_or_email`, `email:md5`."""
    parts = (part.partition(":") for part in rule.casefold().split(_OR))
    return [_Wanted(_CALLED_OTHERWISE.get(name, frozenset((name,))), encoding or _RAW) for name, _, encoding in parts]


def _context_key(profile: dict[str, object], wanted: Sequence[_Wanted], limits: Limits) -> str | InvalidValue:
    """The first identity that the feed asks for and the profile has, or what is wrong with it."""
    is_hashed = False
    for each in wanted:
        if _MPID in each.types and profile.get(_MPID) is not None:
            return _checked(profile[_MPID], f"/{_MPID}", limits)
        for pointer, identity in _identities(profile):
            if _folded(identity.get("type")) not in each.types:
                continue
            if (_folded(identity.get("encoding")) or _RAW) == each.encoding:
                return _checked(identity.get("value", MISSING), f"{pointer}/value", limits)
            is_hashed = True
    if is_hashed:
        return InvalidValue(Reason.CONTEXT_KEY_HASHED, "its identity of the feed's type is in another encoding only")
    return InvalidValue(Reason.CONTEXT_KEY_MISSING, "it has no identity of the type that the feed's context_key says")


def _checked(value: object, pointer: str, limits: Limits) -> str | InvalidValue:
    try:
        return values.context_key(value, pointer, limits.context_key_bytes)
    except InvalidValue as problem:
        return problem


def _identities(profile: dict[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
    for name in _IDENTITIES:
        identities = profile.get(name)
        for index, identity in enumerate(identities if isinstance(identities, list) else ()):
            if isinstance(identity, dict):
                yield f"/{name}/{index}", identity


def _folded(value: object) -> str:
    return value.strip().casefold() if isinstance(value, str) else ""
