"""Who a payload says leaves, read once more and otherwise: tool by tool, from its document alone.

Nothing here uses the parsers. A removal that this cannot find in the document is one that nobody spelled out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_OUT = ("false", "False", "0")
_REMOVED = ("remove", "remove_member", "remove_members")
_IDENTITIES = ("user_identities", "device_identities", "partner_identities")


def document_of(value: bytes) -> Any:
    """What a lenient reader makes of the value. Raises ValueError or RecursionError for what is no JSON at all."""
    return json.loads(value.removeprefix(b"\xef\xbb\xbf").decode(), parse_int=_integer, strict=False)


def leaves(integration: str, document: Any, place: int, key: str) -> bool:
    """Whether the member at this place has this key and is said to leave."""
    try:
        return _LEAVES[integration](document, place, key)
    except (LookupError, TypeError, AttributeError):
        return False  # it is not there


def empties(integration: str, document: Any, cohort_id: str, default: str | None, *, replaces: bool) -> bool:
    """Whether the document says that this cohort has no members any more, or only those that it lists.

    Where it names no cohort, it is about the default.
    """
    try:
        is_said, named = _EMPTIES[integration](document, replaces)
    except (LookupError, TypeError, AttributeError):
        return False
    return is_said and (_same(named, cohort_id) or (named is None and default == cohort_id))


def is_false(value: object) -> bool:
    """Whether this one value says out."""
    return value is False or (isinstance(value, str) and value in _OUT) or (type(value) is int and value == 0)


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float("inf")


def _same(value: object, key: str) -> bool:
    return (isinstance(value, str) or type(value) is int) and str(value) == key


def _folded(value: object) -> str:
    return value.strip().casefold() if isinstance(value, str) else ""


def _by_value(id_field: str) -> Callable[[Any, int, str], bool]:
    def leaves_by_value(document: Any, place: int, key: str) -> bool:
        member = document["batch"][place]
        return _same(member[id_field], key) and is_false(member["value"])

    return leaves_by_value


def _by_list(*ways: tuple[str, ...]) -> Callable[[Any, int, str], bool]:
    def leaves_by_list(document: Any, place: int, key: str) -> bool:
        return any(_is_in_second_list(_found(document, way), place, key) for way in ways)

    return leaves_by_list


def _is_in_second_list(lists: Any, place: int, key: str) -> bool:
    if not isinstance(lists, dict):
        return False
    added, removed = lists.get("add"), lists.get("remove")
    index = place - (len(added) if isinstance(added, list) else 0)
    if not isinstance(removed, list) or not 0 <= index < len(removed):
        return False
    member = removed[index]
    named = [member.get("id"), member.get("identifier")] if isinstance(member, dict) else [member]
    return any(_same(each, key) for each in named)


def _found(document: Any, way: tuple[str, ...]) -> Any:
    for step in way:
        document = document.get(step) if isinstance(document, dict) else None
    return document


def _by_action(way: tuple[str, ...], id_field: str) -> Callable[[Any, int, str], bool]:
    def leaves_by_action(document: Any, place: int, key: str) -> bool:
        member = _found(document, (*way, "members"))[place]
        return _folded(document["action"]) in _REMOVED and _same(member[id_field], key)

    return leaves_by_action


def _by_event(document: Any, place: int, key: str) -> bool:
    event = document["batch"][place] if "type" not in document else document
    traits, properties = _found(event, ("traits",)), _found(event, ("properties",))
    people = [event.get("userId"), event.get("anonymousId"), _found(event, ("traits", "email"))]
    people.append(_found(event, ("context", "traits", "email")))
    answers = [*(traits if isinstance(traits, dict) else {}).values()]
    answers += (properties if isinstance(properties, dict) else {}).values()
    is_said = _folded(event.get("event")) in ("audience exited", "deleted") or any(map(is_false, answers))
    return is_said and any(_same(person, key) for person in people)


def _by_webhook(document: Any, place: int, key: str) -> bool:
    if isinstance(document, dict):
        return _same(document["users"][place]["user_id"], key) and is_false(document["in_cohort"])
    body = document[place]
    said = any(is_false(value) for name, value in body.items() if name.startswith("amplitude_"))
    return said and _same(body["user_id"], key)


def _by_profile(document: Any, place: int, key: str) -> bool:
    pairs: list[tuple[Any, Any]] = []
    for profile in document["user_profiles"]:
        audiences = profile.get("audiences", 0) if isinstance(profile, dict) else 0
        if audiences is not None and not isinstance(audiences, list):
            pairs.append((profile, None))
        pairs += [(profile, audience) for audience in audiences or []] if isinstance(audiences, list) else []
    profile, audience = pairs[place]
    people = [profile.get("mpid")]
    for name in _IDENTITIES:
        found = profile.get(name)
        people += [each.get("value") for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    return _folded(audience["action"]) in ("remove", "delete") and any(_same(person, key) for person in people)


def _heap_drains(document: Any, replaces: bool) -> tuple[bool, Any]:
    wrapped = _found(document, ("heap",))
    body = wrapped if isinstance(wrapped, dict) and "action_type" in wrapped else document
    is_said = _folded(body["action_type"]) == "segment.users.drain" and not replaces
    return is_said, _found(body, ("data", "segment", "id"))


def _subscription_ends(document: Any, replaces: bool) -> tuple[bool, Any]:
    return _folded(document["action"]) in ("remove", "delete") and not replaces, document["audience_id"]


def _members_are_all(id_field: str) -> Callable[[Any, bool], tuple[bool, Any]]:
    def replaces_all(document: Any, replaces: bool) -> tuple[bool, Any]:
        parameters = document["parameters"]
        is_list = isinstance(parameters["members"], list)
        return is_list and replaces and _folded(document["action"]) == "members", parameters.get(id_field)

    return replaces_all


_LEAVES: dict[str, Callable[[Any, int, str], bool]] = {
    "amplitude": _by_value("userId"),
    "segment-audiences": _by_value("userId"),
    "census-synced-segments": _by_value("user_id"),
    "fulcrum": _by_list(("included",)),
    "sumatra-synced-segments": _by_list(("included",)),
    "rudderstack": _by_list(("listData",)),
    "rudderstack-event": _by_list(("properties", "listData")),
    "heap-inbound": _by_list(("heap", "data"), ("data",)),
    "hightouch": _by_action((), "integration_distinct_id"),
    "tealium-synced-segments": _by_action(("parameters",), "member_id"),
    "zeotap": _by_action(("parameters",), "integration_distinct_id"),
    "mixpanel": _by_action(("parameters",), "mixpanel_distinct_id"),
    "segment": _by_event,
    "amplitude-webhook": _by_webhook,
    "mparticle": _by_profile,
}
_EMPTIES: dict[str, Callable[[Any, bool], tuple[bool, Any]]] = {
    "heap-inbound": _heap_drains,
    "mparticle": _subscription_ends,
    "mixpanel": _members_are_all("mixpanel_cohort_id"),
    "zeotap": _members_are_all("integration_cohort_id"),
}
