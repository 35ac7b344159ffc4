"""mParticle's audience messages: profiles, each with the audiences that it joined or left.

The only inverted shape: one profile changes in many audiences, so a member is a pair of profile and audience. Who the
profile is, is one of its identities; the feed's `context_key` says of which type. Identities may be hashed, and a hash
is no context key, unless the feed asks for it (`email:md5`). Source of the shape: the examples of mParticle's Firehose
SDK for Java.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from consumers import values
from consumers.actions import Action, ActionWords
from consumers.document import decode, member_list
from consumers.errors import Ignored, InvalidRecord, InvalidValue, Reason
from consumers.event_times import from_epoch_milliseconds
from consumers.feeds import ContextKeyRule, Feed, Limits
from consumers.parsed import Collector, Operation, Parsed
from consumers.rules import Rules
from consumers.values import MISSING
from stores.model import Cohort

_CHANGES, _SUBSCRIPTION = "audience_membership_change_request", "audience_subscription_request"
_MEMBERSHIP = ActionWords(
    {"add": Action.ADD, "delete": Action.REMOVE, "remove": Action.REMOVE, "attribute_update": Action.IGNORE}
)
_LIFECYCLE = ActionWords({"add": Action.IGNORE, "update": Action.IGNORE, "remove": Action.DRAIN})

_IDENTITIES = ("user_identities", "device_identities", "partner_identities")
_MPID = "mpid"
_RAW = "raw"
_CUSTOMER = frozenset(("customer", "customer_id", "customerid"))
_CALLED_OTHERWISE = {str(ContextKeyRule.USER_ID): _CUSTOMER, "customer": _CUSTOMER, "customer_id": _CUSTOMER}
_OR = "_or_"
_IDENTITY_TYPE = re.compile(r"[a-z][a-z0-9_]*(:[a-z0-9][a-z0-9-]*)?")


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
    if profiles is None or profiles == []:
        return Parsed(ignored=Ignored.NO_MEMBERS)  # mParticle tries out an address in this way
    if not isinstance(profiles, list):
        raise InvalidRecord(Reason.MEMBER_LIST_INVALID, "/user_profiles is not a list")
    time_us = from_epoch_milliseconds(message.get("timestamp_ms"))
    pairs = list(_pairs(profiles, _identities_of_rule(feed.context_key), limits))
    collector = Collector()
    for place, pair in enumerate(pairs):
        try:
            _collect(collector, place, pair, time_us)
        except InvalidValue as problem:
            collector.reject(place, problem)
    parsed = collector.parsed(environment=environment, context_kind=feed.context_kind, members=len(pairs))
    if not parsed.changes and not parsed.rejects:
        return Parsed(ignored=Ignored.NO_MEMBERSHIP_CHANGE if pairs else Ignored.NO_MEMBERS, members=len(pairs))
    return parsed


def _subscription(message: dict[str, object], environment: str | None, feed: Feed) -> Parsed:
    """The customer connected an audience, changed the connection, or ended it: then nobody of it is synced any more."""
    action = _LIFECYCLE.meaning(message.get("action"), "/action")
    if action is Action.IGNORE:
        return Parsed(ignored=Ignored.NO_MEMBERSHIP_CHANGE, members=1)
    drained = Operation(_cohort(message), None, from_epoch_milliseconds(message.get("timestamp_ms")))
    return Parsed(environment=environment, context_kind=feed.context_kind, members=1, operation=drained)


class _Pair(msgspec.Struct, gc=False):
    """A profile and one of its audiences: a member. Where the profile is nobody, its key is what is wrong with it."""

    profile: str
    number: int
    audience: object
    context_key: str | InvalidValue


def _pairs(profiles: list[object], wanted: Sequence[_Wanted], limits: Limits) -> Iterator[_Pair | InvalidValue]:
    """The members in the order of the document. A profile that has no list of audiences is one that is wrong."""
    for index, item in enumerate(profiles):
        pointer = f"/user_profiles/{index}"
        try:
            profile = _object(item)
            audiences = _audiences(profile)
        except InvalidValue as problem:
            yield problem.within(pointer)
            continue
        key = _context_key(profile, wanted, limits)
        for number, audience in enumerate(audiences):
            yield _Pair(pointer, number, audience, key)


def _collect(collector: Collector, place: int, pair: _Pair | InvalidValue, time_us: int | None) -> None:
    """Add one member. Raises `InvalidValue`, as seen from the message, where it cannot be used."""
    if isinstance(pair, InvalidValue):
        raise pair
    try:
        audience = _object(pair.audience)
        action = _MEMBERSHIP.meaning(audience.get("action"), "/action")
        if action is Action.IGNORE:
            return  # whoever it is
        cohort = _cohort(audience)
    except InvalidValue as problem:
        raise problem.within(f"{pair.profile}/audiences/{pair.number}") from None
    if isinstance(pair.context_key, InvalidValue):
        raise pair.context_key.within(pair.profile).about(cohort)
    collector.add(place, cohort, pair.context_key, included=action is Action.ADD, event_time_us=time_us)


def _audiences(profile: dict[str, object]) -> list[object]:
    try:
        return member_list(profile.get("audiences", MISSING), "/audiences")
    except InvalidRecord as problem:
        raise InvalidValue(problem.reason, problem.detail) from None


def _cohort(named: dict[str, object]) -> Cohort:
    # The feed's own cohort is none of these: mParticle names each of its many.
    audience_id = values.cohort_id(named.get("audience_id", MISSING), "/audience_id")
    return Cohort(MParticle.name, audience_id, values.cohort_name(named.get("audience_name")))


def _object(item: object) -> dict[str, object]:
    if not isinstance(item, dict):
        raise InvalidValue(Reason.MEMBER_INVALID, "it is not an object")
    return item


class _Wanted(NamedTuple):
    """A kind of identity that may be the context key, by the names that mParticle has for it."""

    types: frozenset[str]
    encoding: str


def is_identity_rule(rule: str) -> bool:
    """Whether a feed's `context_key` may say this: types of identities, each perhaps with the encoding asked for."""
    return all(map(_IDENTITY_TYPE.fullmatch, rule.split(_OR)))


@lru_cache
def _identities_of_rule(rule: str) -> Sequence[_Wanted]:
    """What the feed asks for, in order: `customer`, `user_id_or_email`, `email:md5`."""
    parts = (part.partition(":") for part in rule.split(_OR))
    return [_Wanted(_CALLED_OTHERWISE.get(name, frozenset((name,))), encoding or _RAW) for name, _, encoding in parts]


def _context_key(profile: dict[str, object], wanted: Sequence[_Wanted], limits: Limits) -> str | InvalidValue:
    """The first identity that the feed asks for and the profile has, or what is wrong with it."""
    is_hashed = False
    for each in wanted:
        if _MPID in each.types and each.encoding == _RAW and profile.get(_MPID) is not None:
            return _checked(profile[_MPID], f"/{_MPID}", limits)
        for name, index, identity in _identities(profile):
            if _folded(identity.get("type")) not in each.types:
                continue
            encoding = _encoding(identity)
            if encoding == each.encoding:
                return _checked(identity.get("value", MISSING), f"/{name}/{index}/value", limits)
            is_hashed = is_hashed or encoding != _RAW
    if is_hashed:
        return InvalidValue(Reason.CONTEXT_KEY_HASHED, "its identity of the feed's type is in another encoding only")
    return InvalidValue(Reason.CONTEXT_KEY_MISSING, "it has no identity of the type that the feed's context_key says")


def _checked(value: object, pointer: str, limits: Limits) -> str | InvalidValue:
    try:
        return values.context_key(value, pointer, limits.context_key_bytes)
    except InvalidValue as problem:
        return problem


def _identities(profile: dict[str, object]) -> Iterator[tuple[str, int, dict[str, object]]]:
    for name in _IDENTITIES:
        identities = profile.get(name)
        for index, identity in enumerate(identities if isinstance(identities, list) else ()):
            if isinstance(identity, dict):
                yield name, index, identity


def _encoding(identity: dict[str, object]) -> str:
    # One that is no text is not understood, so it is none that a feed could ask for, and surely not raw.
    encoding = identity.get("encoding")
    return _RAW if encoding is None or encoding == "" else _folded(encoding)


def _folded(value: object) -> str:
    return value.strip().casefold() if isinstance(value, str) else ""
