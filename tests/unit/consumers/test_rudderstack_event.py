"""RudderStack's own events: the rows of domain.md 2.4, and that the short way and the long one agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.errors import InvalidRecord
from consumers.feeds import Environments, Limits
from consumers.rudderstack_event import RudderstackEvent
from consumers.rules import Rules
from tests.unit.consumers.meaning import a_feed, as_json, meaning, normalized, rejects

C = "rudderstack-aud"
FEED: dict[str, Any] = {"format": "rudderstack-event", "cohort_id": "aud", "cohort_name": "Audience"}


def event(kind: object = "audiencelist", **lists: object) -> dict[str, Any]:
    return {"type": kind, "properties": {"listData": lists}, "timestamp": "2020-02-02T00:23:09.544Z"}


ROWS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("zero-is-an-id", event(add=[{"identifier": 0}, {"id": 0.0}]), [f"+0 {C}", "1: context_key_invalid"]),
    ("an-empty-id-is-blank", event(add=[{"identifier": ""}, {"id": "u"}]), ["0: context_key_blank", f"+u {C}"]),
    ("members-may-be-ids", event(add=["u1", 7], remove=["u2"]), [f"+u1 {C}", f"+7 {C}", f"-u2 {C}"]),
    ("true-is-no-id", event(add=[True, "u"]), ["0: context_key_invalid", f"+u {C}"]),
    ("null-costs-itself", event(add=[None, {"identifier": "u"}]), ["0: member_invalid", f"+u {C}"]),
    ("an-object-is-no-list", event(add={}, remove=["u"]), ["None: member_list_invalid", f"-u {C}"]),
    ("only-a-bad-list", event(add="abc"), ["None: member_list_invalid"]),
    ("added-and-removed", event(add=[{"identifier": "u"}], remove=[{"identifier": "u"}]), [f"-u {C}"]),
    ("the-documented-id", event(remove=[{"id": "u"}]), [f"-u {C}"]),
    ("identifier-before-id", event(add=[{"identifier": "u", "id": "other"}]), [f"+u {C}"]),
    ("numbers", event(add=[{"identifier": 2**70}]), [f"+{2**70} {C}"]),
    ("nobody", event(add=[], remove=None), ["ignored: no_members"]),
    ("no-lists", event(), ["invalid: no_members_field"]),
    ("type-in-any-case", event("audienceList", add=["u"]), [f"+u {C}"]),
    ("another-event", event("track", add=["u"]), ["ignored: not_an_audience"]),
    ("no-type", event(None, add=["u"]), ["invalid: payload_invalid"]),
    ("further-lists", event(add=["u"], update=["v"]), [f"+u {C}"]),
]


@pytest.mark.parametrize(("payload", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_payload_means(payload: dict[str, Any], expected: list[str]) -> None:
    assert meaning(payload, **FEED) == expected


def test_what_is_wrong_is_said_with_its_pointer() -> None:
    assert rejects(event(add=["u", ""], remove=[{}]), **FEED) == {
        1: "/properties/listData/add/1: it is blank",
        2: "/properties/listData/remove/0: it has neither an identifier nor an id",
    }


def test_without_a_cohort_in_the_feed_there_is_none() -> None:
    for payload in (event(add=["u"]), event(add=[{"identifier": "u"}])):
        assert meaning(payload, format="rudderstack-event") == ["invalid: cohort_id_missing"]


def test_the_clock_is_the_events_own() -> None:
    for member in ("u", {"identifier": "u"}):
        (group,) = normalized(event(add=[member]), **FEED).groups
        assert group.version.event_time_us == 1_580_602_989_544_000


MEMBERS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"identifier": st.sampled_from(["u1", "u2", 3, None, ""]), "id": st.sampled_from(["u1", 4, None])}
    )
    | st.sampled_from(["u1", None, 7]),
    max_size=4,
)


@given(add=MEMBERS | st.none(), remove=MEMBERS)
def test_the_short_way_comes_to_what_the_long_one_does(add: object, remove: object) -> None:
    value, feed, rules = (
        as_json(event(add=add, remove=remove)),
        a_feed(**FEED),
        Rules(limits=Limits(), environments=Environments()),
    )
    try:
        quick = RudderstackEvent().parse_columns(value, feed, rules)
    except InvalidRecord as problem:
        pytest.fail(f"the short way refused: {problem}")
    if quick is not None:
        assert list(quick.in_order()) == list(RudderstackEvent().parse_each(value, feed, rules).in_order())
