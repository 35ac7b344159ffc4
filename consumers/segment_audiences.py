"""Audiences and journeys of Twilio Segment Engage: which one an event is about, and whether it says in or out.

The name of the property that holds the answer is `context.personas.computation_key`. Journeys and misconfigured sources
leave it out or call it otherwise, so more places are asked, in order. What none of them says is never taken for out.
"""

from __future__ import annotations

from functools import lru_cache

from consumers import values
from consumers.errors import Ignored, InvalidValue, Reason
from consumers.feeds import Feed
from consumers.segment_event import Event, Personas
from consumers.values import MISSING, properties_of
from stores.model import Cohort

INTEGRATION = "segment-audiences"

_COMPUTATION_ID = "/context/personas/computation_id"
_CACHED_COHORTS = 4096
AUDIENCE, JOURNEY, TRAIT = "audience", "journey_step", "trait"
_BY_EVENT_NAME = {"audience entered": True, "audience exited": False}
_BY_REVERSE_ETL = {"new": True, "updated": True, "deleted": False}


def audience_membership(event: Event, personas: Personas, feed: Feed) -> tuple[Cohort, bool] | Ignored:
    """What an event with `context.personas` says about its person."""
    computation = personas.computation_class
    if computation == TRAIT:
        return Ignored.COMPUTED_TRAIT
    if computation not in (AUDIENCE, JOURNEY):
        return Ignored.UNKNOWN_COMPUTATION_CLASS
    # Sources mix up traits and properties, so both are searched.
    place, other = (event.properties, event.traits) if event.type == "track" else (event.traits, event.properties)
    key = personas.computation_key
    included = _answer(key, place)
    if included is None:
        other_key = properties_of(event.properties).get("audience_key")
        included = _first_answer((key, other), (other_key, place), (other_key, other))
        key = key or other_key
    if included is None:
        included = _answer_of_event(event, is_journey=computation == JOURNEY)
    return _cohort(personas.computation_id, key, feed), included


def reverse_etl_membership(event: Event, feed: Feed) -> tuple[Cohort, bool] | Ignored:
    """What a track event without `context.personas` says, for a feed that is about one cohort."""
    included = _BY_REVERSE_ETL.get(_folded(event.event))
    if feed.cohort_id is None or included is None:
        return Ignored.NOT_AN_AUDIENCE
    return Cohort(INTEGRATION, feed.cohort_id, feed.cohort_name), included


def audience_name(key: str) -> str | None:
    """The name that Segment's own LaunchDarkly destination makes of an audience's key."""
    return values.cohort_name((key[:1].upper() + key[1:]).replace("_", " ").strip())


def _cohort(computation_id: object, key: object, feed: Feed) -> Cohort:
    if feed.cohort_id is not None and (computation_id is None or computation_id is MISSING):
        computation_id = feed.cohort_id
    if not isinstance(computation_id, str):
        computation_id = values.cohort_id(computation_id, _COMPUTATION_ID)
    text = key[: values.NAME_CHARACTERS] if isinstance(key, str) else ""
    return _named(computation_id, feed.cohort_name or "", text)


@lru_cache(maxsize=_CACHED_COHORTS)
def _named(computation_id: str, name: str, key: str) -> Cohort:
    return Cohort(INTEGRATION, values.cohort_id(computation_id, _COMPUTATION_ID), name or audience_name(key))


def _answer(key: object, place: object) -> bool | None:
    """Whether the value under this name says in or out; None where there is no such value."""
    if not isinstance(place, dict) or not isinstance(key, str) or not key or key not in place:
        return None
    return values.membership(place[key], "the value under the audience's key")


def _first_answer(*keys_and_places: tuple[object, object]) -> bool | None:
    answers = (_answer(key, place) for key, place in keys_and_places)
    return next((included for included in answers if included is not None), None)


def _answer_of_event(event: Event, *, is_journey: bool) -> bool:
    said = _BY_EVENT_NAME.get(_folded(event.event)) if event.type == "track" else None
    if said is not None:
        return said
    # A journey never removes anybody, and its events carry no answer; an audience's always do.
    if is_journey:
        return True
    raise InvalidValue(
        Reason.MEMBERSHIP_VALUE_MISSING,
        "neither /traits nor /properties has a value under the name in /context/personas/computation_key",
    )


def _folded(value: object) -> str:
    return value.strip().casefold() if isinstance(value, str) else ""
