"""RudderStack's own events: the rows of domain.md 2.4, and that the short way and the long one agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.feeds import Environments, Limits
from consumers.rudderstack_event import RudderstackEvent
from consumers.rules import Rules
from tests.unit.consumers.meaning import a_feed, a_normalizer, as_json, meaning, normalized, rejects

C = "rudderstack-aud"
FEED: dict[str, Any] = {"format": "rudderstack-event", "cohort_id": "aud", "cohort_name": "Audience"}

KEY_INVALID = "0: context_key_invalid"


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
    ("identify", event("identify", add=["u"]), ["ignored: not_an_audience"]),
    ("a-type-that-is-no-text", event(3, add=["u"]), ["invalid: payload_invalid"]),
    ("null-for-identifier", event(add=[{"identifier": None, "id": "u"}]), [f"+u {C}"]),
    ("a-list-is-no-id", event(add=[{"identifier": ["u"], "id": "u"}, ["u"]]), [KEY_INVALID, "1: member_invalid"]),
    ("true-in-an-object", event(add=[{"identifier": True}]), [KEY_INVALID]),
    ("nul", event(add=[{"identifier": "u\0"}]), [KEY_INVALID]),
    ("too-long", event(add=[{"identifier": "x" * 513}]), ["0: context_key_too_long"]),
    ("both-lists-bad", event(add=3, remove={}), ["None: member_list_invalid", "None: member_list_invalid"]),
    ("bad-beside-empty", event(add=[], remove="abc"), ["None: member_list_invalid"]),
    ("one-list", event(add=None, remove=[{"id": "u"}]), [f"-u {C}"]),
    ("odd-properties", {"type": "audiencelist", "properties": [1]}, ["invalid: no_members_field"]),
    ("no-properties", {"type": "audiencelist"}, ["invalid: no_members_field"]),
    ("further-lists", event(add=["u"], delete=["v"]), ["None: member_list_invalid", f"+u {C}"]),
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


RULES = Rules(limits=Limits(), environments=Environments())


@settings(max_examples=300)
@given(add=MEMBERS | st.none(), remove=MEMBERS)
def test_the_short_way_comes_to_what_the_long_one_does(add: object, remove: object) -> None:
    value, feed, parser = as_json(event(add=add, remove=remove)), a_feed(**FEED), RudderstackEvent()

    short, long = parser.parse_columns(value, feed, RULES), parser.parse_each(value, feed, RULES)

    if short is not None:
        assert list(short.in_order()) == list(long.in_order())
        assert (short.members, short.conflicts, short.context_kind) == (long.members, long.conflicts, long.context_kind)


@given(ids=st.lists(st.integers() | st.text("abc\u00e9", min_size=1), unique_by=str, min_size=1), cut=st.integers(0, 5))
def test_the_short_way_is_taken_for_good_events(ids: list[object], cut: int) -> None:
    members = [{"identifier": each} if place % 2 else {"id": each} for place, each in enumerate(ids)]

    parsed = RudderstackEvent().parse_columns(
        as_json(event(add=members[:cut], remove=members[cut:])), a_feed(**FEED), RULES
    )

    assert parsed is not None
    assert [(each.included, list(each.places)) for each in parsed.changes] == [
        (included, places)
        for included, places in ((True, [*range(len(ids))][:cut]), (False, [*range(len(ids))][cut:]))
        if places
    ]


@settings(max_examples=300)
@given(add=MEMBERS, remove=MEMBERS | st.sampled_from(["u1", {"identifier": "u1"}]))
def test_nobody_leaves_who_is_not_in_the_list_to_remove(add: object, remove: object) -> None:
    groups = normalized(event(add=add, remove=remove, delete=add), **FEED).groups
    listed = remove if isinstance(remove, list) else []
    named = {str(each) for member in listed for each in (member.values() if isinstance(member, dict) else [member])}

    assert {key for group in groups if not group.included for key in group.context_keys} <= named


def test_a_record_of_another_cell_is_skipped_before_it_is_read() -> None:
    assert meaning(b"{", a_normalizer("staging", skip=True), **FEED) == ["ignored: other_environment"]
