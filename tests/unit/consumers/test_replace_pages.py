"""Pages of full copies: which page a record is, and what remains of one that was not understood."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.errors import InvalidValue, Reason
from consumers.replace_pages import LARGEST_SESSION_PAGES, SESSION_BYTES, page_of
from consumers.values import MISSING
from stores.model import Page
from tests.unit.consumers.meaning import meaning, rejects

C1 = "mixpanel-c1"

PAGES: list[tuple[str, tuple[object, object, object], Page]] = [
    ("nothing-at-all-is-the-whole-copy", (MISSING, MISSING, MISSING), Page(None)),
    ("null-is-nothing", (None, None, None), Page(None)),
    ("an-empty-session-is-none", ("", MISSING, MISSING), Page(None)),
    ("a-session-that-does-not-say-when-it-is-complete", ("s1", MISSING, None), Page("s1")),
    ("one-page-needs-no-session", (None, 1, 1), Page(None, 1, 1)),
    ("a-page-of-a-session", ("s1", 6, 10), Page("s1", 6, 10)),
    ("the-first-page", ("s1", 1, 10), Page("s1", 1, 10)),
    ("the-last-page", ("s1", 10, 10), Page("s1", 10, 10)),
    ("numbers-as-text", ("s1", "6", "10"), Page("s1", 6, 10)),
    ("numbers-as-text-with-zeros-before-them", ("s1", "06", "010"), Page("s1", 6, 10)),
    ("the-most-pages", ("s1", 1_000_000, 1_000_000), Page("s1", LARGEST_SESSION_PAGES, LARGEST_SESSION_PAGES)),
    ("a-session-that-is-an-integer", (7, 1, 2), Page("7", 1, 2)),
    ("a-session-that-is-zero", (0, 1, 2), Page("0", 1, 2)),
    ("spaces-around-a-session-stay", (" s 1 ", 1, 2), Page(" s 1 ", 1, 2)),
    ("the-longest-session", ("é" * (SESSION_BYTES // 2), 1, 2), Page("é" * (SESSION_BYTES // 2), 1, 2)),
]


@pytest.mark.parametrize(("named", "page"), [row[1:] for row in PAGES], ids=[row[0] for row in PAGES])
def test_a_page_is_what_session_number_and_count_say(named: tuple[object, object, object], page: Page) -> None:
    assert page_of(*named) == page


NO_NUMBERS: tuple[object, ...] = (0, -1, 1.0, True, "", " 1", "-1", "1.0", "ten", "\u0661", "1" * 10, [1], {})
NO_SESSIONS: tuple[object, ...] = (" ", "\t\n", "a\0", True, False, 1.5, [], {})

NO_PAGES: list[tuple[str, tuple[object, object, object]]] = [
    ("a-number-without-a-count", ("s1", 1, MISSING)),
    ("a-number-with-a-null-count", ("s1", 1, None)),
    ("a-count-without-a-number", ("s1", MISSING, 1)),
    ("a-page-beyond-the-last", ("s1", 11, 10)),
    ("several-pages-without-a-session", (MISSING, 1, 2)),
    ("several-pages-of-an-empty-session", ("", 2, 2)),
    ("too-many-pages", ("s1", 1, LARGEST_SESSION_PAGES + 1)),
    *[(f"page-{odd!r}", ("s1", odd, 10)) for odd in NO_NUMBERS],
    *[(f"of-{odd!r}-pages", ("s1", 1, odd)) for odd in NO_NUMBERS],
    *[(f"session-{odd!r}", (odd, 1, 1)) for odd in NO_SESSIONS],
    ("a-session-that-is-too-long", ("s" * (SESSION_BYTES + 1), 1, 1)),
    ("a-session-with-too-many-bytes", ("é" * (SESSION_BYTES // 2) + "s", 1, 1)),
    ("a-session-with-too-many-digits", (10**SESSION_BYTES, 1, 1)),
    ("a-blank-session-without-pages", (" ", MISSING, MISSING)),
]


@pytest.mark.parametrize("named", [row[1] for row in NO_PAGES], ids=[row[0] for row in NO_PAGES])
def test_what_makes_no_sense_is_no_page(named: tuple[object, object, object]) -> None:
    with pytest.raises(InvalidValue) as problem:
        page_of(*named)

    assert problem.value.reason is Reason.PAGE_INVALID


def copy_of(*members: object, number: object = 1, pages: object = 2, **others: Any) -> dict[str, Any]:
    """A page of a full copy, as Mixpanel sends it."""
    parameters = {
        "mixpanel_cohort_id": "c1",
        "mixpanel_session_id": "s1",
        "page_info": {"page_count": number, "total_pages": pages},
        "members": list(members),
    }
    return {"action": "members", "parameters": {**parameters, **others}}


def person(key: object) -> dict[str, object]:
    return {"mixpanel_distinct_id": key}


def says(payload: object, **feed: Any) -> list[str]:
    return meaning(payload, format="mixpanel", **feed)


def test_a_page_is_one_operation_and_adds_its_members() -> None:
    assert says(copy_of(person("u1"), person("u2"))) == [f"replace {C1} s1 1/2", f"+u1 {C1}", f"+u2 {C1}"]


def test_a_page_may_list_nobody() -> None:
    assert says(copy_of()) == [f"replace {C1} s1 1/2"]


def test_a_member_that_is_listed_twice_does_not_make_a_page_incomplete() -> None:
    assert says(copy_of(person("u1"), person("u1"))) == [f"replace {C1} s1 1/2", f"+u1 {C1}"]


@pytest.mark.parametrize("bad", [None, "u2", {}, person(None), person(""), person(1.5), person("u" * 513)])
def test_a_page_with_a_bad_member_replaces_nobody_and_adds_the_others(bad: object) -> None:
    (incomplete, added, rejected) = says(copy_of(person("u1"), bad))

    assert (incomplete, added) == ("None: replace_incomplete", f"+u1 {C1}")
    assert rejected.startswith("1: ")


def test_a_page_of_nothing_but_bad_members_replaces_nobody() -> None:
    assert says(copy_of("u1", "u2")) == ["None: replace_incomplete", "0: member_invalid", "1: member_invalid"]


def test_a_page_info_of_other_names_is_not_taken_for_a_copy_without_pages() -> None:
    payload = copy_of(person("u1"), page_info={"totalPages": 10, "pageCount": 6})

    assert says(payload) == ["None: page_invalid", f"+u1 {C1}"]


PAGE_INVALID = ["None: page_invalid", f"+u1 {C1}"]


@pytest.mark.parametrize(
    "payload",
    [
        copy_of(person("u1"), number=3),
        copy_of(person("u1"), number=0),
        copy_of(person("u1"), number=None),
        copy_of(person("u1"), pages="many"),
        copy_of(person("u1"), mixpanel_session_id=None),
        copy_of(person("u1"), mixpanel_session_id={}),
        copy_of(person("u1"), page_info={"page_count": 1}),
        copy_of(person("u1"), page_info="1/2"),
        copy_of(person("u1"), page_info=[1, 2]),
        copy_of(person("u1"), page_info=False),
    ],
)
def test_a_page_that_makes_no_sense_replaces_nobody_and_still_adds(payload: object) -> None:
    assert says(payload) == PAGE_INVALID


def test_a_bad_member_of_a_page_that_makes_no_sense_is_rejected_for_itself() -> None:
    assert says(copy_of(person("u1"), "u2", number=3)) == [*PAGE_INVALID, "1: member_invalid"]


def test_a_page_of_nobody_that_makes_no_sense_does_nothing() -> None:
    assert says(copy_of(number=3)) == ["None: page_invalid"]


@pytest.mark.parametrize("page_info", [None, {}, {"page_count": None, "total_pages": None}])
def test_without_any_page_a_session_does_not_say_when_it_is_complete(page_info: object) -> None:
    assert says(copy_of(person("u1"), page_info=page_info)) == [f"replace {C1} s1 1/?", f"+u1 {C1}"]


@pytest.mark.parametrize("no_list", [None, {}, "", "u1", 0, False])
def test_only_a_list_replaces_anybody_and_null_is_not_a_copy_of_nobody(no_list: object) -> None:
    assert says(copy_of(members=no_list)) == ["invalid: member_list_invalid"]


def test_a_copy_without_any_list_replaces_nobody() -> None:
    payload = copy_of()
    del payload["parameters"]["members"]

    assert says(payload) == ["invalid: no_members_field"]


@pytest.mark.parametrize("members", [[], [person("u1")]])
@pytest.mark.parametrize(
    ("cohort_id", "reason"), [(None, "cohort_id_missing"), ("", "cohort_id_invalid"), (True, "cohort_id_invalid")]
)
def test_a_copy_of_no_cohort_replaces_nobody(members: list[object], cohort_id: object, reason: str) -> None:
    assert says(copy_of(*members, mixpanel_cohort_id=cohort_id)) == [f"invalid: {reason}"]


def test_what_only_adds_or_removes_needs_no_page_that_makes_sense() -> None:
    assert says({**copy_of(person("u1"), number=3), "action": "add_members"}) == [f"+u1 {C1}"]
    assert says({**copy_of(person("u1"), "u2", number=3), "action": "remove_members"}) == [
        f"-u1 {C1}",
        "1: member_invalid",
    ]


def test_details_say_what_is_wrong_with_a_page_and_quote_nothing() -> None:
    payload = copy_of(person("secret"), "secret", number="secret", mixpanel_session_id="secret")

    assert rejects(payload, format="mixpanel") == {
        None: "the page's number is not from 1 to 1000000",
        1: "/parameters/members/1: it is not an object",
    }


@pytest.mark.parametrize(
    ("integration", "payload"),
    [
        ("heap-inbound", {"action_type": "segment.users.drain", "data": "all"}),
        ("heap-inbound", {"action_type": "segment.users.drain", "data": {"segment": 7}}),
        ("zeotap", {"action": "members", "parameters": ["members"]}),
    ],
)
def test_nonsense_where_the_cohort_stands_empties_nothing_though_the_feed_has_one(
    integration: str, payload: object
) -> None:
    (said,) = meaning(payload, format=integration, cohort_id="the feed's")

    assert said in ("invalid: cohort_id_invalid", "invalid: no_members_field")
