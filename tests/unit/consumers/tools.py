"""What each tool of a manifest format sends, written short: a test names only what it cares about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

AMPLITUDE, CENSUS, AUDIENCES = "amplitude", "census-synced-segments", "segment-audiences"
RUDDERSTACK, FULCRUM, SUMATRA = "rudderstack", "fulcrum", "sumatra-synced-segments"
HEAP, RAW_HEAP = "heap-inbound", "raw-heap"
HIGHTOUCH, TEALIUM, ZEOTAP, MIXPANEL = "hightouch", "tealium-synced-segments", "zeotap", "mixpanel"

NOTHING = object()
"""Stands for what a payload does not have."""


# A value at each member says who is in.


def census(user_id: object = "u1", **others: object) -> dict[str, object]:
    return {"user_id": user_id, "cohort_id": "c1", "value": True, **others}


def audience(user_id: object = "u1", **others: object) -> dict[str, object]:
    return {"userId": user_id, "cohortId": "c1", "value": True, **others}


def batch(*members: object, **others: object) -> dict[str, object]:
    return {"batch": list(members), **others}


# A list says who joins, and another who leaves.


def rudderstack(cohort: object = "c1", **lists: object) -> dict[str, object]:
    return {"cohortId": cohort, "listData": listed(lists)}


def included(cohort: object = "c1", **lists: object) -> dict[str, object]:
    """As Fulcrum and Sumatra write it."""
    return {"cohortId": cohort, "included": listed(lists)}


def raw_heap(cohort: object = "c1", action: object = "segment.users.sync", **lists: object) -> dict[str, object]:
    return {"action_type": action, "data": {"segment": {"id": cohort}, **listed(lists)}}


def heap(cohort: object = "c1", **body: Any) -> dict[str, object]:
    return {"parameters": {"environment_id": "production"}, "heap": raw_heap(cohort, **body)}


def listed(lists: dict[str, object]) -> dict[str, object]:
    return {name: people("id", *found) if isinstance(found, list) else found for name, found in lists.items()}


def people(field: str, *members: object) -> list[object]:
    """Members of these ids. What is no id stands for itself."""
    return [{field: member} if isinstance(member, str | int) else member for member in members]


# One action says it for all members.


def hightouch(*members: object, action: object = "add", cohort: object = "c1", **others: object) -> dict[str, object]:
    own = {"action": action, "cohortId": cohort, "members": people("integration_distinct_id", *members)}
    return known({**own, **others})


def tealium(
    *members: object, action: object = "add_member", cohort: object = "c1", **others: object
) -> dict[str, object]:
    parameters = {"tealium_cohort_id": cohort, "members": people("member_id", *members), **others}
    return known({"action": action, "parameters": known(parameters)})


def zeotap(
    *members: object, action: object = "add_members", cohort: object = "c1", **others: object
) -> dict[str, object]:
    parameters = {"integration_cohort_id": cohort, "members": people("integration_distinct_id", *members), **others}
    return known({"action": action, "parameters": known(parameters)})


def mixpanel(
    *members: object, action: object = "add_members", cohort: object = "c1", **others: object
) -> dict[str, object]:
    parameters = {"mixpanel_cohort_id": cohort, "members": people("mixpanel_distinct_id", *members), **others}
    return known({"action": action, "parameters": known(parameters)})


def known(payload: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in payload.items() if value is not NOTHING}


def without(payload: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in payload.items() if key != name}


def format_of(tool: str) -> str:
    return HEAP if tool == RAW_HEAP else tool


ADDING: dict[str, Callable[..., dict[str, object]]] = {
    AMPLITUDE: lambda cohort, *ids: batch(*[audience(each, cohortId=cohort) for each in ids]),
    CENSUS: lambda cohort, *ids: batch(*[census(each, cohort_id=cohort) for each in ids]),
    AUDIENCES: lambda cohort, *ids: batch(*[audience(each, cohortId=cohort) for each in ids]),
    RUDDERSTACK: lambda cohort, *ids: rudderstack(cohort, add=list(ids)),
    FULCRUM: lambda cohort, *ids: included(cohort, add=list(ids)),
    SUMATRA: lambda cohort, *ids: included(cohort, add=list(ids)),
    HEAP: lambda cohort, *ids: heap(cohort, add=list(ids)),
    RAW_HEAP: lambda cohort, *ids: raw_heap(cohort, add=list(ids)),
    HIGHTOUCH: lambda cohort, *ids: hightouch(*ids, cohort=cohort),
    TEALIUM: lambda cohort, *ids: tealium(*ids, cohort=cohort),
    ZEOTAP: lambda cohort, *ids: zeotap(*ids, cohort=cohort),
    MIXPANEL: lambda cohort, *ids: mixpanel(*ids, cohort=cohort),
}
"""What each tool sends where these ids join this cohort."""

KINDS = {
    CENSUS: "context_kind",
    **dict.fromkeys((AUDIENCES, RUDDERSTACK, FULCRUM, SUMATRA, HIGHTOUCH), "contextKind"),
}
"""Where the tools that name a context kind do so."""

BY_LIST: list[tuple[str, Callable[..., dict[str, object]]]] = [
    (RUDDERSTACK, rudderstack),
    (FULCRUM, included),
    (SUMATRA, included),
    (HEAP, heap),
    (RAW_HEAP, raw_heap),
]
