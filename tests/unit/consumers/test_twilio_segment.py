"""Events of Twilio Segment. The names of the rows are those of domain.md 2.1 and 2.3."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.feeds import ContextKeyRule
from tests.unit.consumers.meaning import NOW_MS, meaning, normalized, rejects

BETA = "segment-audiences-aud_1"
PERSONAS = {"computation_class": "audience", "computation_id": "aud_1", "computation_key": "beta"}


def event(kind: str, *, personas: dict[str, object] | None = None, **others: object) -> dict[str, object]:
    context = {"personas": {**PERSONAS, **(personas or {})}}
    return {"type": kind, "userId": "u1", "context": context, **others}


def identify(traits: object = None, **others: Any) -> dict[str, object]:
    return event("identify", traits={"beta": True} if traits is None else traits, **others)


def track(properties: object = None, **others: Any) -> dict[str, object]:
    return event("track", properties={"beta": True} if properties is None else properties, **others)


def without(payload: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key != name}


def keyless(kind: dict[str, Any]) -> dict[str, Any]:
    """The event without the name of its computation's key."""
    personas = without(kind["context"]["personas"], "computation_key")
    return {**kind, "context": {"personas": personas}}


def says(payload: object, **feed: Any) -> list[str]:
    return meaning(payload, format="segment", **feed)


JOURNEY = {"computation_class": "journey_step"}
NEITHER: tuple[object, ...] = ("yes", 2, 1.0, [], {})
NO_IDS: tuple[object, ...] = (True, ["x"], 1.5, {})
ADDED, REMOVED = [f"+u1 {BETA}"], [f"-u1 {BETA}"]
NO_VALUE = ["invalid: membership_value_missing"]

ROWS: list[tuple[str, Any, list[str]]] = [
    ("identify-adds", identify(), ADDED),
    ("identify-removes", identify({"beta": False}), REMOVED),
    ("track-adds", track(), ADDED),
    ("track-removes", track({"beta": False}), REMOVED),
    ("the-string-false-removes", identify({"beta": "false"}), REMOVED),
    ("the-string-true-adds-journeys-v1", identify({"beta": "true"}), ADDED),
    ("zero-removes", identify({"beta": 0}), REMOVED),
    ("null-is-refused", identify({"beta": None}), ["invalid: value_missing"]),
    *[(f"{odd!r}-is-refused", identify({"beta": odd}), ["invalid: value_invalid"]) for odd in NEITHER],
    ("a-journey-without-a-value-adds", identify({}, personas=JOURNEY), ADDED),
    ("a-journey-without-a-key-adds", keyless(track({}, personas=JOURNEY)), ADDED),
    ("a-journey-with-false-removes", track({"beta": False}, personas=JOURNEY), REMOVED),
    ("a-journey-with-nonsense-is-refused", track({"beta": "x"}, personas=JOURNEY), ["invalid: value_invalid"]),
    ("an-audience-key-names-the-value", track({"audience_key": "other", "other": False}), REMOVED),
    ("the-computation-key-comes-first", track({"audience_key": "o", "o": False, "beta": True}), ADDED),
    ("an-event-name-says-entered", track({}, event="Audience Entered"), ADDED),
    ("an-event-name-says-exited", track({}, event="Audience Exited"), REMOVED),
    ("an-event-name-is-not-asked-on-identify", identify({}, event="Audience Exited"), NO_VALUE),
    ("an-event-name-of-another-kind", track({}, event="Order Completed"), NO_VALUE),
    ("a-mismatch-of-key-names-is-no-removal", identify({"other": True}), NO_VALUE),
    ("no-traits-at-all", without(identify(), "traits"), NO_VALUE),
    ("traits-that-are-a-list", identify([True]), NO_VALUE),
    ("a-track-with-empty-properties-and-a-trait", track({}, traits={"beta": True}), ADDED),
    ("an-identify-with-a-property", identify({}, properties={"beta": False}), REMOVED),
    ("a-track-asks-its-properties-first", track({"beta": False}, traits={"beta": True}), REMOVED),
    ("user-id-missing", without(identify(), "userId"), ["invalid: context_key_missing"]),
    ("user-id-null", identify(userId=None), ["invalid: context_key_missing"]),
    ("user-id-empty", identify(userId=""), ["invalid: context_key_blank"]),
    ("user-id-blank", identify(userId=" \t"), ["invalid: context_key_blank"]),
    *[(f"user-id-{odd!r}", identify(userId=odd), ["invalid: context_key_invalid"]) for odd in NO_IDS],
    ("user-id-numeric", identify(userId=42), [f"+42 {BETA}"]),
    ("user-id-zero", identify(userId=0), [f"+0 {BETA}"]),
    ("class-trait", identify(personas={"computation_class": "trait"}), ["ignored: computed_trait"]),
    ("class-unknown", identify(personas={"computation_class": "sql"}), ["ignored: unknown_computation_class"]),
    ("class-missing", identify(personas={"computation_class": None}), ["ignored: unknown_computation_class"]),
    ("no-personas", {"type": "identify", "userId": "u1", "traits": {"beta": True}}, ["ignored: not_an_audience"]),
    ("no-context", {"type": "track", "userId": "u1", "event": "new"}, ["ignored: not_an_audience"]),
    ("personas-null", identify(context={"personas": None}), ["ignored: not_an_audience"]),
    *[
        (kind, event(kind, traits={"beta": True}), ["ignored: not_an_audience"])
        for kind in ("page", "screen", "group", "alias")
    ],
    ("type-missing", without(identify(), "type"), ["invalid: payload_invalid"]),
    ("type-of-another-type", identify(type=3), ["invalid: payload_invalid"]),
    ("context-of-another-type", identify(context="web"), ["invalid: payload_invalid"]),
    ("personas-of-another-type", identify(context={"personas": "aud_1"}), ["invalid: payload_invalid"]),
    ("computation-id-missing", identify(personas={"computation_id": None}), ["invalid: cohort_id_missing"]),
    ("computation-id-odd", identify(personas={"computation_id": {}}), ["invalid: cohort_id_invalid"]),
    ("computation-id-true", identify(personas={"computation_id": True}), ["invalid: cohort_id_invalid"]),
    ("computation-id-numeric", identify(personas={"computation_id": 7}), ["+u1 segment-audiences-7"]),
]


@pytest.mark.parametrize(("payload", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_an_event_means_what_domain_2_3_calls_correct(payload: object, expected: list[str]) -> None:
    assert says(payload) == expected


@pytest.mark.parametrize("payload", [b"[]", b'"identify"', b"3", b"null", b"true", b"{}"])
def test_a_value_that_is_no_event_is_refused(payload: bytes) -> None:
    assert says(payload) == ["invalid: payload_invalid"]


EVERYBODY = {"userId": "u", "traits": {"beta": True, "email": "e"}, "anonymousId": "a"}
RULES: list[tuple[ContextKeyRule, dict[str, object], str]] = [
    (ContextKeyRule.USER_ID, {}, "+u"),
    (ContextKeyRule.USER_ID, {"userId": ""}, "context_key_blank"),
    (ContextKeyRule.USER_ID_OR_EMAIL, {}, "+u"),
    (ContextKeyRule.USER_ID_OR_EMAIL, {"userId": ""}, "+e"),
    (ContextKeyRule.USER_ID_OR_EMAIL, {"userId": None}, "+e"),
    (ContextKeyRule.USER_ID_OR_EMAIL, {"userId": 0}, "+0"),
    (ContextKeyRule.USER_ID_OR_EMAIL, {"userId": False}, "context_key_invalid"),
    (ContextKeyRule.USER_ID_OR_EMAIL, {"userId": "", "traits": {"beta": True}}, "context_key_blank"),
    (ContextKeyRule.USER_ID_OR_ANONYMOUS_ID, {"userId": ""}, "+a"),
    (ContextKeyRule.USER_ID_OR_EMAIL_OR_ANONYMOUS_ID, {"userId": ""}, "+e"),
    (ContextKeyRule.USER_ID_OR_EMAIL_OR_ANONYMOUS_ID, {"userId": "", "traits": {"beta": True}}, "+a"),
    (ContextKeyRule.EMAIL, {}, "+e"),
    (ContextKeyRule.EMAIL, {"traits": {"beta": True}}, "context_key_missing"),
    (ContextKeyRule.ANONYMOUS_ID, {}, "+a"),
    (ContextKeyRule.ANONYMOUS_ID, {"anonymousId": None}, "context_key_missing"),
]


@pytest.mark.parametrize(("rule", "change", "expected"), RULES)
def test_the_feed_says_which_identifiers_may_be_the_key(
    rule: ContextKeyRule, change: dict[str, object], expected: str
) -> None:
    payload = {**identify(), **EVERYBODY, **change}

    assert says(payload, context_key=rule)[0].split()[-1 if "_" in expected else 0] == expected


def test_a_track_event_has_its_email_in_the_context() -> None:
    payload = track(context={"personas": PERSONAS, "traits": {"email": "e"}})

    assert says(payload, context_key=ContextKeyRule.EMAIL) == [f"+e {BETA}"]


def test_an_empty_email_counts_as_one_that_exists() -> None:
    payload = identify({"beta": True, "email": ""}, context={"personas": PERSONAS, "traits": {"email": "e"}})

    assert says(payload, context_key=ContextKeyRule.EMAIL) == ["invalid: context_key_blank"]


def test_emails_are_taken_as_they_are() -> None:
    payload = identify({"beta": True, "email": " Ann@Example.com "})

    assert says(payload, context_key=ContextKeyRule.EMAIL) == [f"+ Ann@Example.com  {BETA}"]


def test_a_rule_for_another_format_rejects_and_does_not_stop_the_worker() -> None:
    assert says(identify(), context_key="customer_id") == ["invalid: context_key_missing"]


@pytest.mark.parametrize(
    ("key", "name"),
    [("ld_segment_test", "Ld segment test"), ("j_o_x", "J o x"), ("_x", "x"), ("été_é", "Été é"), ("___", None)],
)
def test_an_audience_is_called_by_its_key_as_segment_does_it(key: str, name: str | None) -> None:
    (group,) = normalized(identify({key: True}, personas={"computation_key": key}), format="segment").groups

    assert group.cohort.name == name


def test_a_name_in_the_feed_wins_over_one_made_of_a_key() -> None:
    (group,) = normalized(identify(), format="segment", cohort_name="Beta testers").groups

    assert group.cohort.name == "Beta testers"


@pytest.mark.parametrize(
    ("timestamp", "expected_us"),
    [
        ("2023-08-16T17:26:03.123Z", 1_692_206_763_123_000),
        ("2023-08-16T17:26:03Z", 1_692_206_763_000_000),
        ("2023-08-16t17:26:03z", 1_692_206_763_000_000),
        ("2023-08-16T19:26:03.123456+02:00", 1_692_206_763_123_456),
        ("2023-08-16T17:26:03.123456789Z", 1_692_206_763_123_456),
    ],
)
def test_the_clock_is_the_events_own(timestamp: str, expected_us: int) -> None:
    (group,) = normalized(identify(timestamp=timestamp), format="segment").groups

    assert group.version.event_time_us == expected_us


@pytest.mark.parametrize(
    "timestamp",
    [None, "", "now", "2023-08-16", "2023-08-16T17:26:03", "2023-02-30T00:00:00Z", "0001-01-01T00:00:00Z",
     "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 1692206763, True, {}, []],
)  # fmt: skip
def test_a_clock_that_cannot_be_read_is_none_and_no_error(timestamp: object) -> None:
    (group,) = normalized(identify(timestamp=timestamp), format="segment").groups

    assert group.version.event_time_us == NOW_MS * 1000


@pytest.mark.parametrize(("name", "sign"), [("new", "+"), ("updated", "+"), ("Deleted", "-")])
def test_reverse_etl_is_read_where_the_feed_names_the_cohort(name: str, sign: str) -> None:
    payload = {"type": "track", "userId": "u1", "event": name, "properties": {}}

    assert says(payload, cohort_id="rows") == [f"{sign}u1 segment-audiences-rows"]
    assert says(payload) == ["ignored: not_an_audience"]


def test_other_events_are_ignored_also_where_the_feed_names_the_cohort() -> None:
    assert says({"type": "track", "userId": "u1", "event": "Order"}, cohort_id="rows") == ["ignored: not_an_audience"]


def test_a_batch_is_read_event_by_event() -> None:
    payload = {"batch": [identify(), event("page"), track({"beta": False}, userId="u2"), 3, identify(userId=None)]}

    assert says(payload) == [f"+u1 {BETA}", f"-u2 {BETA}", "3: member_invalid", "4: context_key_missing"]
    assert rejects(payload, format="segment") == {
        3: "/batch/3: it is no Segment event: it, its /context or its /context/personas is not an object",
        4: "/batch/4/userId is missing",
    }


@pytest.mark.parametrize(
    ("rule", "detail"),
    [
        (ContextKeyRule.USER_ID, "/batch/0/userId is missing"),
        (ContextKeyRule.USER_ID_OR_EMAIL, "/batch/0/userId and /traits/email are missing"),
    ],
)
def test_every_identifier_that_was_looked_for_is_named(rule: str, detail: str) -> None:
    assert rejects({"batch": [identify(userId=None)]}, format="segment", context_key=rule) == {0: detail}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], "ignored: no_members"),
        (None, "ignored: no_members"),
        ([event("page"), event("page")], "ignored: not_an_audience"),
        ({}, "invalid: member_list_invalid"),
    ],
)
def test_a_batch_may_hold_nothing(events: object, expected: str) -> None:
    assert says({"batch": events}) == [expected]


def test_within_a_batch_the_newest_event_wins_wherever_it_stands() -> None:
    newer = identify({"beta": False}, timestamp="2023-08-16T17:26:04Z")
    older = identify(timestamp="2023-08-16T17:26:03Z")

    assert says({"batch": [newer, older]}) == REMOVED
    assert says({"batch": [older, newer]}) == REMOVED


def test_of_events_of_one_time_the_last_wins() -> None:
    assert says({"batch": [identify(), identify({"beta": False})]}) == REMOVED


def test_two_identifiers_that_give_one_key_are_one_change() -> None:
    result = normalized({"batch": [identify(), identify(anonymousId="a")]}, format="segment")

    assert [list(group.context_keys) for group in result.groups] == [["u1"]]
    assert result.conflicts == 0


@pytest.mark.parametrize("odd", [None, "", " ", True, ["x"], 1.5])
def test_an_event_without_a_usable_user_costs_no_other(odd: object) -> None:
    before, here, after = says({"batch": [identify(), identify(userId=odd), identify(userId="u2")]})

    assert (before, after) == (f"+u1 {BETA}", f"+u2 {BETA}")
    assert here.startswith("1: context_key_")


def test_one_email_leaves_while_another_of_the_same_profile_stays() -> None:
    stays = identify({"beta": True, "email": "a@example.com"})
    leaves = identify({"beta": False, "email": "b@example.com"})

    assert says({"batch": [stays, leaves]}, context_key=ContextKeyRule.EMAIL) == [
        f"+a@example.com {BETA}",
        f"-b@example.com {BETA}",
    ]


def test_the_kind_of_every_event_is_the_feeds() -> None:
    (group,) = normalized(
        {"batch": [identify(), identify(userId="u2")]}, format="segment", context_kind="account"
    ).groups

    assert group.context_kind == "account"


def test_a_whole_number_that_python_refuses_costs_nothing() -> None:
    long = b'{"type":"identify","userId":"u1","traits":{"beta":true,"n":' + b"9" * 5000 + b'},"context":{"personas":'

    assert says(long + b'{"computation_class":"audience","computation_id":"aud_1","computation_key":"beta"}}}') == ADDED
