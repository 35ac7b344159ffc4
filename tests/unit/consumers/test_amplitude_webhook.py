"""Amplitude's generic cohort webhook, and the list of users that a template makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.consumers.meaning import NOW_MS, a_normalizer, meaning, normalized, rejects

C1 = "amplitude-c1"


def webhook(*users: object, **others: object) -> dict[str, object]:
    return {"cohort_id": "c1", "cohort_name": "Beta", "in_cohort": True, "users": list(users), **others}


def user(user_id: object = "u1", **others: object) -> dict[str, object]:
    return {"user_id": user_id, **others}


def says(payload: object, **feed: Any) -> list[str]:
    return meaning(payload, format="amplitude-webhook", **feed)


def time_us(**clock: object) -> int | None:
    (group,) = normalized(webhook(user(), **clock), format="amplitude-webhook").groups
    return group.version.event_time_us


def test_all_users_of_a_message_enter_or_leave_together() -> None:
    assert says(webhook(user("a"), user("b"))) == [f"+a {C1}", f"+b {C1}"]
    assert says(webhook(user("a"), user("b"), in_cohort=False)) == [f"-a {C1}", f"-b {C1}"]


def test_a_bad_user_is_rejected_alone() -> None:
    users: tuple[object, ...] = (
        user("a"),
        None,
        "b",
        {},
        user(None),
        user(4.2),
        user(" "),
        user("c\0"),
        user("x" * 513),
        user(42),
    )

    assert says(webhook(*users)) == [
        f"+a {C1}",
        "1: member_invalid",
        "2: member_invalid",
        "3: context_key_missing",
        "4: context_key_missing",
        "5: context_key_invalid",
        "6: context_key_blank",
        "7: context_key_invalid",
        "8: context_key_too_long",
        f"+42 {C1}",
    ]


@pytest.mark.parametrize(
    ("direction", "reason"),
    [(None, "value_missing"), ("perhaps", "value_invalid"), (1.0, "value_invalid"), ([], "value_invalid")],
)
def test_without_a_clear_direction_nobody_moves(direction: object, reason: str) -> None:
    assert says(webhook(user(), in_cohort=direction)) == [f"invalid: {reason}"]


@pytest.mark.parametrize(
    ("cohort_id", "reason"), [(None, "cohort_id_missing"), ("", "cohort_id_invalid"), (4.2, "cohort_id_invalid")]
)
def test_without_a_cohort_the_record_is_invalid(cohort_id: object, reason: str) -> None:
    assert says(webhook(user(), cohort_id=cohort_id)) == [f"invalid: {reason}"]


def test_the_feed_names_the_cohort_where_the_payload_does_not() -> None:
    assert says(webhook(user(), cohort_id=None), cohort_id="c9") == ["+u1 amplitude-c9"]


@pytest.mark.parametrize("users", [[], None])
def test_a_message_without_users_is_a_heartbeat_whatever_it_says(users: object) -> None:
    assert says({"cohort_id": 4.2, "users": users}) == ["ignored: no_members"]


def test_the_list_of_users_must_be_there_and_a_list() -> None:
    assert says({"cohort_id": "c1", "in_cohort": True}) == ["invalid: no_members_field"]
    assert says(webhook() | {"users": {"user_id": "u1"}}) == ["invalid: member_list_invalid"]


@pytest.mark.parametrize("payload", [b"3", b'"users"', b"null", b"true"])
def test_a_value_that_is_neither_object_nor_list_is_refused(payload: bytes) -> None:
    assert says(payload) == ["invalid: payload_invalid"]


@pytest.mark.parametrize("name", ["computed_time", "compute_time"])
@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("1692206763", 1_692_206_763_000_000),
        (1692206763, 1_692_206_763_000_000),
        ("1692206763.25", 1_692_206_763_250_000),
        (1692206763.5, 1_692_206_763_500_000),
        ("1692206763.123456789", 1_692_206_763_123_456),
    ],
)
def test_the_clock_is_amplitudes_own(name: str, clock: object, expected: int) -> None:
    assert time_us(**{name: clock}) == expected


@pytest.mark.parametrize(
    "clock", [None, "", "now", "NaN", "1e9", "1_000", "-1", 0, "0", -5, True, [], {}, 1e300, "9" * 400, "١٢"]
)
def test_a_clock_that_cannot_be_read_is_none_and_no_error(clock: object) -> None:
    assert time_us(computed_time=clock) == NOW_MS * 1000


def test_of_two_clocks_the_one_that_can_be_read_counts() -> None:
    assert time_us(computed_time="", compute_time="1692206763") == 1_692_206_763_000_000


def test_a_template_names_the_cohort_in_a_property_of_each_user() -> None:
    payload = [
        user("a", amplitude_Power_users_7kh=True),
        user("b", **{"amplitude_Power (EU): x_7kh": False}),
        user("c", amplitude_Power_users_7kh="False", amplitude_other_99=1),
    ]

    assert says(payload) == ["+a amplitude-7kh", "-b amplitude-7kh", "-c amplitude-7kh", "+c amplitude-99"]


def test_a_template_without_a_usable_cohort_costs_only_its_user() -> None:
    payload = [
        user("a"),
        user("b", amplitude_beta_7kh=None),
        3,
        user(None, amplitude_beta_7kh=True),
        user("c", amplitude_beta_7kh=True),
    ]

    assert says(payload) == [
        "0: cohort_id_missing",
        "1: value_missing",
        "2: member_invalid",
        "3: context_key_missing",
        "+c amplitude-7kh",
    ]


def test_an_empty_template_is_a_heartbeat() -> None:
    assert says([]) == ["ignored: no_members"]


def test_the_template_as_amplitudes_page_prints_it_is_no_json() -> None:
    assert says(b'{ [ {"user_id": "u1", "amplitude_beta_7kh": true} ] }') == ["invalid: json_invalid"]


def test_the_last_of_several_mentions_of_a_user_wins() -> None:
    result = normalized([user("a", amplitude_b_1=True), user("a", amplitude_b_1=False)], format="amplitude-webhook")

    assert [(group.included, list(group.context_keys)) for group in result.groups] == [(False, ["a"])]
    assert result.conflicts == 1


def test_details_point_at_what_is_wrong_and_quote_nothing() -> None:
    assert rejects(webhook(user("secret\0"), "secret"), format="amplitude-webhook") == {
        0: "/users/0/user_id holds a NUL character",
        1: "/users/1: it is not an object",
    }
    assert rejects([user("a", amplitude_secret_1="secret")], format="amplitude-webhook") == {
        0: "/0: its property amplitude_<name>_<id> is neither true nor false"
    }


def test_a_record_of_another_cell_is_skipped_before_it_is_read() -> None:
    other_cell = a_normalizer("staging", skip=True)

    assert meaning(b"{", other_cell, format="amplitude-webhook") == ["ignored: other_environment"]
