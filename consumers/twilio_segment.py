"""Twilio Segment: identify and track events of Engage, and those that Amplitude sends through Segment.

The clock is the event's own `timestamp`. An event that is about no audience is ignored, since a source carries many.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from consumers.amplitude_identify import cohort_traits
from consumers.document import decode, member_list, not_json
from consumers.errors import Ignored, InvalidRecord, InvalidValue, Reason
from consumers.event_times import from_rfc3339
from consumers.feeds import Feed, Limits
from consumers.parsed import Changes, Collector, Parsed
from consumers.rules import Rules
from consumers.segment_audiences import audience_membership, reverse_etl_membership
from consumers.segment_event import Event, Memberships, context_key
from consumers.values import MISSING
from stores.model import Cohort

_DECODER = msgspec.json.Decoder(Event, float_hook=float)


class TwilioSegment:
    """The format `segment`: one event, or a `batch` of them."""

    name = "segment"

    def parse(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The changes of one record. What is promised is said at `consumers.formats.Format`."""
        environment = rules.environment(MISSING, feed)
        event = _decoded(value)
        if event.batch is not MISSING and event.type is MISSING:
            return _parse_batch(event.batch, environment, feed, rules.limits)
        return _parse_event(event, environment, feed, rules.limits)


def _parse_event(event: Event, environment: str | None, feed: Feed, limits: Limits) -> Parsed:
    found = _memberships(event, feed)
    if not isinstance(found, tuple):  # asked this way round, it costs nothing
        if isinstance(found, Ignored):
            return Parsed(ignored=found, members=1)
        return _parse_traits(event, found, environment, feed, limits)
    cohort, included = found
    key = _context_key(event, [cohort], feed, limits)
    return Parsed(
        environment=environment,
        context_kind=feed.context_kind,
        changes=(Changes(cohort, included, (key,), (0,), from_rfc3339(event.timestamp)),),
        members=1,
    )


def _parse_traits(event: Event, found: Memberships, environment: str | None, feed: Feed, limits: Limits) -> Parsed:
    """An event about several cohorts. It is invalid as a whole only where it says nothing about any."""
    if not found.said:
        raise found.problems[0]
    collector = Collector()
    _collect(collector, 0, event, found, _context_key(event, found.cohorts(), feed, limits))
    for problem in found.problems:
        collector.reject(0, problem)
    return collector.parsed(environment=environment, context_kind=feed.context_kind, members=1)


def _parse_batch(batch: object, environment: str | None, feed: Feed, limits: Limits) -> Parsed:
    items = member_list(batch, "/batch")
    collector = Collector()
    ignored: list[Ignored] = []
    for place, item in enumerate(items):
        try:
            ignored += _collect_item(collector, place, item, feed, limits)
        except InvalidValue as problem:
            collector.reject(place, problem.within(f"/batch/{place}"))
    if len(ignored) == len(items):
        return Parsed(ignored=ignored[0] if ignored else Ignored.NO_MEMBERS, members=len(items))
    return collector.parsed(environment=environment, context_kind=feed.context_kind, members=len(items))


def _collect_item(collector: Collector, place: int, item: object, feed: Feed, limits: Limits) -> Sequence[Ignored]:
    """Add one event of a batch, or give the reason to ignore it."""
    event = _event(item, Reason.MEMBER_INVALID)
    found = _memberships(event, feed)
    if isinstance(found, Ignored):
        return (found,)
    if not isinstance(found, Memberships):
        found = Memberships((found,))
    _collect(collector, place, event, found, _context_key(event, found.cohorts(), feed, limits))
    for problem in found.problems:
        collector.reject(place, problem.within(f"/batch/{place}"))
    return ()


def _collect(collector: Collector, place: int, event: Event, found: Memberships, key: str) -> None:
    for cohort, included in found.said:
        collector.add(place, cohort, key, included=included, event_time_us=from_rfc3339(event.timestamp))


def _context_key(event: Event, cohorts: Sequence[Cohort], feed: Feed, limits: Limits) -> str:
    try:
        return context_key(event, feed.context_key, limits.context_key_bytes)
    except InvalidValue as problem:
        raise problem.about(*cohorts) from None


def _memberships(event: Event, feed: Feed) -> tuple[Cohort, bool] | Memberships | Ignored:
    """What an event says of one cohort, or of several, whichever of the tools sent it.

    An event of Engage is known by `context.personas`.
    """
    if event.type not in ("identify", "track"):
        if not isinstance(event.type, str):
            raise InvalidValue(Reason.PAYLOAD_INVALID, "/type is missing or not a string")
        return Ignored.NOT_AN_AUDIENCE
    personas = event.context.personas if event.context else None
    if personas is None:
        if event.type == "identify":
            found = cohort_traits(event)
            return found.said[0] if isinstance(found, Memberships) and found.is_one() else found
        return reverse_etl_membership(event, feed)
    return audience_membership(event, personas, feed)


def _decoded(value: bytes) -> Event:
    try:
        return _DECODER.decode(value)
    except msgspec.ValidationError:
        return _event(decode(value), Reason.PAYLOAD_INVALID)
    except msgspec.DecodeError as exc:
        raise not_json(exc) from None
    except RecursionError:
        raise InvalidRecord(Reason.JSON_TOO_DEEP, "the value is nested too deep to be decoded") from None


def _event(item: object, reason: Reason) -> Event:
    try:
        return msgspec.convert(item, Event)
    except msgspec.ValidationError:
        raise InvalidValue(
            reason, "it is no Segment event: it, its /context or its /context/personas is not an object"
        ) from None
