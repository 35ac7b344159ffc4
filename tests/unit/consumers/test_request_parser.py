"""Payloads of manifest formats, by the example of Amplitude's. The numbers are the rows of domain.md 2.2."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.values import NAME_CHARACTERS
from tests.unit.consumers.meaning import a_normalizer, meaning, normalized, rejects

C1 = "amplitude-c1"


def member(user_id: object = "u1", **others: object) -> dict[str, object]:
    return {"userId": user_id, "value": True, "cohortId": "c1", **others}


def batch(*members: object, **others: object) -> dict[str, object]:
    return {"environmentId": "production", "batch": list(members), **others}


def without(item: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in item.items() if key != name}


NEITHER: tuple[object, ...] = ("TRUE", "yes", "", " true", 2, -1, 1.0, 0.0, [], [False], {}, "add")
NO_IDS: tuple[object, ...] = ({"a": 1}, ["u1"], [], {})

ROWS: list[tuple[str, Any, list[str]]] = [
    ("1-false-is-a-removal", batch(member(value=False)), [f"-u1 {C1}"]),
    ("2-true-and-false-in-one-batch", batch(member("u1"), member("u2", value=False)), [f"+u1 {C1}", f"-u2 {C1}"]),
    ("3-zero-is-a-removal", batch(member(value=0)), [f"-u1 {C1}"]),
    ("3-null-rejects-that-member", batch(member(value=None), member("u2")), ["0: value_missing", f"+u2 {C1}"]),
    ("3-no-value-rejects-that-member", batch(without(member(), "value")), ["0: value_missing"]),
    *[
        (f"4-{value!r}-is-a-membership", batch(member(value=value)), [f"{sign}u1 {C1}"])
        for sign, values in (("+", (True, "true", "True", 1, "1")), ("-", (False, "false", "False", 0, "0")))
        for value in values
    ],
    *[
        (f"4-{value!r}-is-no-membership", batch(member(value=value), member("u2")), ["0: value_invalid", f"+u2 {C1}"])
        for value in NEITHER
    ],
    ("6-integers-become-text", batch(member(42)), [f"+42 {C1}"]),
    ("6-integers-keep-all-digits", batch(member(2**53 + 1)), [f"+9007199254740993 {C1}"]),
    ("6-thirty-digits", batch(member(10**29 + 7)), [f"+100000000000000000000000000007 {C1}"]),
    ("6-negative-integer", batch(member(-5)), [f"+-5 {C1}"]),
    *[
        (f"6-{value!r}-is-no-id", batch(member(value), member("u2")), ["0: context_key_invalid", f"+u2 {C1}"])
        for value in (42.0, 4.2, 1e3, True, False)
    ],
    ("7-zero-is-an-id", batch(member(0)), [f"+0 {C1}"]),
    *[
        (f"8-{value!r}-is-no-id", batch(member(value), member("u2")), ["0: context_key_invalid", f"+u2 {C1}"])
        for value in NO_IDS
    ],
    *[
        (f"9-{value!r}-is-blank", batch(member(value), member("u2")), ["0: context_key_blank", f"+u2 {C1}"])
        for value in ("", "  ", "\t\n", "\u3000")
    ],
    ("9-spaces-around-an-id-stay", batch(member(" u 1 ")), [f"+ u 1  {C1}"]),
    ("9-null-is-no-id", batch(member(None)), ["0: context_key_missing"]),
    ("9-a-missing-id", batch(without(member(), "userId"), member("u2")), ["0: context_key_missing", f"+u2 {C1}"]),
    ("10-an-empty-batch-is-a-heartbeat", batch(), ["ignored: no_members"]),
    ("10-a-null-batch-is-an-empty-one", {"batch": None}, ["ignored: no_members"]),
    ("11-a-batch-that-is-an-object", {"batch": {"0": member()}}, ["invalid: member_list_invalid"]),
    ("11-a-batch-that-is-a-string", {"batch": "u1"}, ["invalid: member_list_invalid"]),
    ("12-a-member-that-is-a-string", batch("u1", member("u2")), ["0: member_invalid", f"+u2 {C1}"]),
    ("12-a-member-that-is-null", batch(member(), None, member("u2")), [f"+u1 {C1}", "1: member_invalid", f"+u2 {C1}"]),
    ("12-a-member-that-is-a-list", batch([member()], member("u2")), ["0: member_invalid", f"+u2 {C1}"]),
    ("13-two-cohorts", batch(member(), member(cohortId="c2")), [f"+u1 {C1}", "+u1 amplitude-c2"]),
    ("14-cohort-zero", batch(member(cohortId=0)), ["+u1 amplitude-0"]),
    ("18-no-batch", {"environmentId": "production"}, ["invalid: no_members_field"]),
    ("19-the-last-of-several-wins", batch(member(), member(value=False)), [f"-u1 {C1}"]),
    ("30-a-numeric-cohort-id", batch(member(cohortId=1338065)), ["+u1 amplitude-1338065"]),
    ("an-id-as-integer-and-text-is-one", batch(member(42), member("42", value=False)), [f"-42 {C1}"]),
    ("an-id-with-nul", batch(member("u\0"), member("u2")), ["0: context_key_invalid", f"+u2 {C1}"]),
    ("an-id-that-is-too-long", batch(member("u" * 513), member("u2")), ["0: context_key_too_long", f"+u2 {C1}"]),
    ("an-id-that-just-fits", batch(member("é" * 256)), [f"+{'é' * 256} {C1}"]),
    ("an-id-with-too-many-bytes", batch(member("é" * 257)), ["0: context_key_too_long"]),
    ("unknown-fields-do-not-matter", batch(member(extra={"a": [1.5, None]}), sentAt="now"), [f"+u1 {C1}"]),
]


@pytest.mark.parametrize(("payload", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_payload_means_what_domain_2_2_calls_correct(payload: object, expected: list[str]) -> None:
    assert meaning(payload) == expected


@pytest.mark.parametrize("payload", [b"[]", b'"batch"', b"3", b"null", b"true"])
def test_a_value_that_is_no_object_is_refused(payload: bytes) -> None:
    assert meaning(payload) == ["invalid: payload_invalid"]


def test_a_member_without_a_cohort_of_its_own_is_in_that_of_the_record() -> None:
    assert meaning(batch(member(), without(member("u2"), "cohortId"))) == [f"+u1 {C1}", f"+u2 {C1}"]


def test_a_member_is_rejected_alone_where_neither_it_nor_the_record_names_a_cohort() -> None:
    no_cohort = without(member(), "cohortId")

    assert meaning(batch(no_cohort, member("u2"))) == ["0: cohort_id_missing", f"+u2 {C1}"]


@pytest.mark.parametrize("wrong", [True, 4.2, {}, [], "", " ", "c\0", "c" * 1025])
def test_an_unusable_cohort_of_a_member_is_never_replaced_by_that_of_the_record(wrong: object) -> None:
    assert meaning(batch(member(), member("u2", cohortId=wrong))) == [f"+u1 {C1}", "1: cohort_id_invalid"]


def test_an_unusable_cohort_of_the_record_costs_only_the_members_that_need_it() -> None:
    payload = batch(member(cohortId={}), member("u2"), without(member("u3"), "cohortId"))

    assert meaning(payload) == ["0: cohort_id_invalid", f"+u2 {C1}", "2: cohort_id_invalid"]


def test_the_feed_names_the_cohort_where_the_payload_does_not() -> None:
    payload = batch(without(member(), "cohortId"), member("u2", cohortId="c2"))

    assert meaning(payload, cohort_id="c9", cohort_name="Nine") == ["+u1 amplitude-c9", "+u2 amplitude-c2"]


def test_names_and_links_are_taken_from_any_member_and_never_decide() -> None:
    payload = batch(member(), member("u2", cohortName="Beta"), member("u3", cohortName="Other", cohortUrl="https://b"))

    cohorts = {group.cohort for group in normalized(payload).groups}

    assert [(cohort.cohort_id, cohort.name, cohort.url) for cohort in cohorts] == [("c1", "Beta", "https://b")]


@pytest.mark.parametrize("odd", [None, 42, True, [], {}, "", "  ", "\0"])
def test_an_odd_name_is_no_name(odd: object) -> None:
    (group,) = normalized(batch(member(cohortName=odd, cohortUrl=odd if odd != "  " else None))).groups

    assert group.cohort.name is None
    assert group.cohort.url is None


def test_names_are_cut_and_lose_what_no_store_can_keep() -> None:
    (group,) = normalized(batch(member(cohortName="a\0" * 1000))).groups

    assert group.cohort.name == "a" * NAME_CHARACTERS


def test_the_name_of_the_first_member_is_not_that_of_another_cohort() -> None:
    groups = normalized(batch(member(cohortName="One"), member("u2", cohortId="c2"))).groups

    assert {group.cohort.cohort_id: group.cohort.name for group in groups} == {"c1": "One", "c2": None}


def test_members_that_were_listed_as_in_and_as_out_are_counted() -> None:
    payload = batch(member("u1"), member("u2"), member("u1", value=False), member("u1"), member("u2"))

    result = normalized(payload)

    assert result.conflicts == 1
    assert [(group.context_keys, list(group.places)) for group in result.groups] == [(["u1", "u2"], [3, 4])]


def test_groups_and_their_members_keep_the_order_of_the_document() -> None:
    payload = batch(member("a", value=False), member("b"), member("c", value=False), member("d"))

    groups = normalized(payload).groups

    assert [(g.included, list(g.context_keys), list(g.places)) for g in groups] == [
        (False, ["a", "c"], [0, 2]),
        (True, ["b", "d"], [1, 3]),
    ]


def test_every_rejected_member_is_counted_as_a_member() -> None:
    assert normalized(batch(member(), None, member("u2", value="perhaps"))).members == 3


def test_details_point_at_what_is_wrong_and_quote_nothing() -> None:
    payload = batch(
        member("secret\0"),
        member("u2", value="secret"),
        "secret",
        member(cohortId=["secret"]),
        without(member(), "userId"),
    )

    assert rejects(payload) == {
        0: "/batch/0/userId holds a NUL character",
        1: "/batch/1/value is neither true nor false",
        2: "/batch/2: it is not an object",
        3: "/batch/3/cohortId is neither a string nor an integer",
        4: "/batch/4/userId is missing",
    }


def test_the_payload_names_its_environment() -> None:
    groups = normalized(batch(member()) | {"environmentId": "staging"}).groups

    assert [group.segment.environment for group in groups] == ["staging"]


@pytest.mark.parametrize("absent", ["", None])
def test_the_feed_names_the_environment_where_the_payload_does_not(absent: object) -> None:
    groups = normalized(batch(member()) | {"environmentId": absent}).groups

    assert [group.segment.environment for group in groups] == ["production"]


@pytest.mark.parametrize("wrong", ["staging", 42, True, {}, ["production"], " ", "production\0", "p" * 300])
def test_an_environment_that_is_none_of_ours_is_refused(wrong: object) -> None:
    payload = batch(member()) | {"environmentId": wrong}

    assert meaning(payload, a_normalizer("production")) == ["invalid: environment_unknown"]


def test_a_record_of_another_cell_is_skipped_whatever_else_is_wrong_with_it() -> None:
    payload = {"environmentId": "staging", "batch": "no list"}

    assert meaning(payload, a_normalizer("production", skip=True)) == ["ignored: other_environment"]
