"""RudderStack's audience lists, as its sources emit them: two lists of members, and no cohort.

The cohort, and the environment, are settings of RudderStack's destination, which the event does not carry: they are
the feed's. Source of the shape: the fixtures of RudderStack's transformer for the destination LaunchDarkly Audience.
"""

from __future__ import annotations

from typing import Any

import msgspec

from consumers import values
from consumers.cohorts import cohort_of_record
from consumers.document import decode
from consumers.errors import Ignored, InvalidRecord, InvalidValue, Reason
from consumers.event_times import from_rfc3339
from consumers.feeds import Feed, Limits
from consumers.member_lists import MemberList, collect_members, found_lists
from consumers.parsed import Changes, Collector, Parsed
from consumers.pointer import Pointer
from consumers.rules import Rules
from consumers.values import MISSING, properties_of
from stores.model import Cohort

INTEGRATION = "rudderstack"

_AUDIENCE_LIST = "audiencelist"
_NO_COHORT = MISSING, MISSING, MISSING
_LISTS = (
    MemberList(Pointer.parse("/properties/listData/add"), included=True),
    MemberList(Pointer.parse("/properties/listData/remove"), included=False),
)


class _Member(msgspec.Struct, gc=False):
    identifier: str | int | None = None
    id: str | int | None = None

    def key(self) -> str | int | None:
        return self.id if self.identifier is None else self.identifier


class _ListData(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    add: list[_Member] | None = None
    remove: list[_Member] | None = None


class _Properties(msgspec.Struct, rename="camel", gc=False):
    list_data: _ListData


class _Event(msgspec.Struct, gc=False):
    """An event whose members are all objects; what else is in it is checked afterwards."""

    type: str
    properties: _Properties
    timestamp: Any = MISSING


_DECODER = msgspec.json.Decoder(_Event, float_hook=float)


class RudderstackEvent:
    """The format `rudderstack-event`."""

    name = "rudderstack-event"

    def parse(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The changes of one record. What is promised is said at `consumers.formats.Format`."""
        return self.parse_columns(value, feed, rules) or self.parse_each(value, feed, rules)

    def parse_columns(self, value: bytes, feed: Feed, rules: Rules) -> Parsed | None:
        """The short way: all members at once, or None where they are not all good."""
        environment = rules.environment(MISSING, feed)
        try:
            event = _DECODER.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
        add, remove = event.properties.list_data.add or [], event.properties.list_data.remove or []
        ids = [member.key() for member in (*add, *remove)]
        if not ids or None in ids or not _is_audience_list(event.type):
            return None
        keys = values.context_keys(ids, rules.limits.context_key_bytes)  # type: ignore[arg-type] # none of them is None
        if keys is None:
            return None
        cohort, time_us = _cohort(feed), from_rfc3339(event.timestamp)
        parts = ((True, 0, len(add)), (False, len(add), len(keys)))
        return Parsed(
            environment=environment,
            context_kind=feed.context_kind,
            changes=[
                Changes(cohort, included, keys[start:stop], range(start, stop), time_us)
                for included, start, stop in parts
                if start < stop
            ],
            members=len(keys),
        )

    def parse_each(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The long way, member by member, for any payload."""
        environment = rules.environment(MISSING, feed)
        event = decode(value)
        if not isinstance(event, dict):
            raise InvalidRecord(Reason.PAYLOAD_INVALID, "the value is not a JSON object")
        if not isinstance(event.get("type"), str):
            raise InvalidRecord(Reason.PAYLOAD_INVALID, "/type is missing or not a string")
        if not _is_audience_list(event["type"]):
            return Parsed(ignored=Ignored.NOT_AN_AUDIENCE, members=1)
        collector = Collector()
        found = found_lists(_LISTS, event, collector)
        if set(properties_of(properties_of(event["properties"])["listData"])) - {"add", "remove"}:
            # Who stands in it may be meant to leave.
            problem = "/properties/listData has a list that is neither add nor remove"
            collector.reject(None, InvalidValue(Reason.MEMBER_LIST_INVALID, problem))
        members = sum(len(listed) for _, listed in found)
        if members:
            cohort, time_us = _cohort(feed), from_rfc3339(event.get("timestamp"))

            def collect(place: int, included: bool | None, member: object) -> None:
                try:
                    key = _context_key(member, rules.limits)
                except InvalidValue as problem:
                    raise problem.about(cohort) from None
                collector.add(place, cohort, key, included=included is True, event_time_us=time_us)

            collect_members(found, collector, collect)
        elif not collector.rejects:
            return Parsed(ignored=Ignored.NO_MEMBERS)
        return collector.parsed(environment=environment, context_kind=feed.context_kind, members=members)


def _is_audience_list(kind: str) -> bool:
    return kind.strip().casefold() == _AUDIENCE_LIST


def _cohort(feed: Feed) -> Cohort:
    if feed.cohort_id is None:
        raise InvalidValue(Reason.COHORT_ID_MISSING, "the event names no cohort, and the feed has no cohort_id")
    return cohort_of_record(INTEGRATION, feed, _NO_COHORT, "")


def _context_key(member: object, limits: Limits) -> str:
    """RudderStack's code reads `identifier` where its own documentation shows `id`; a member may be the id itself."""
    if isinstance(member, str | int):
        return values.context_key(member, "it", limits.context_key_bytes)
    if not isinstance(member, dict):
        raise InvalidValue(Reason.MEMBER_INVALID, "it is neither an object nor an id")
    identifier = member.get("identifier")
    if identifier is not None:
        return values.context_key(identifier, "/identifier", limits.context_key_bytes)
    if member.get("id") is None:
        raise InvalidValue(Reason.CONTEXT_KEY_MISSING, "it has neither an identifier nor an id")
    return values.context_key(member["id"], "/id", limits.context_key_bytes)
