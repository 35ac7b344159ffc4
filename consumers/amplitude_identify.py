"""Amplitude's cohorts as they reach Twilio Segment: identify events with a trait for each cohort, true or false."""

from __future__ import annotations

from consumers import values
from consumers.amplitude_traits import INTEGRATION, PREFIX, TEMPLATE_PREFIX, TraitCohort, cohort_in
from consumers.errors import Ignored, InvalidValue, Reason
from consumers.segment_event import Event, Memberships
from consumers.values import properties_of
from stores.model import Cohort

_SENDER = "amplitude cohort sync"
_PLAIN = ("true", "false", "True", "False")


def cohort_traits(event: Event) -> Memberships | Ignored:
    """The cohorts in this identify event.

    An event that names Amplitude's cohort sync as its sender is about cohorts and nothing else, so each of the five
    forms of a trait counts, and an event without any is an error. Other events are everybody's identify calls, in
    which a trait `Plan (gold)` or `referrer:x` is no cohort. There only the forms count that name Amplitude themselves,
    and of those the one that an ordinary trait could have too (`amplitude_session_id`) only where its value is plainly
    true or false.
    """
    said: list[tuple[Cohort, bool]] = []
    problems: list[InvalidValue] = []
    is_from_amplitude = _is_from_amplitude(event)
    for trait, value in properties_of(event.traits).items():
        named = cohort_in(trait) if is_from_amplitude or _names_amplitude(trait, value) else None
        if named is None:
            continue
        try:
            said.append((_cohort(named), values.membership(value, "/traits: the value of a cohort's trait")))
        except InvalidValue as problem:
            problems.append(problem)
    if said or problems:
        return Memberships(said, problems)
    if is_from_amplitude:
        raise InvalidValue(Reason.COHORT_ID_MISSING, "/traits has no trait that names a cohort and its id")
    return Ignored.NOT_AN_AUDIENCE


def _cohort(named: TraitCohort) -> Cohort:
    return Cohort(INTEGRATION, named.cohort_id, values.cohort_name(named.name))


def _is_from_amplitude(event: Event) -> bool:
    integration = properties_of(event.context.integration) if event.context else {}
    name = integration.get("name")
    return isinstance(name, str) and name.strip().casefold() == _SENDER


def _names_amplitude(trait: str, value: object) -> bool:
    if trait.startswith(PREFIX):
        return True
    return trait.startswith(TEMPLATE_PREFIX) and (value is True or value is False or value in _PLAIN)
