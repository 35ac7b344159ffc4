"""Amplitude's cohorts as traits of identify events that arrive through Twilio Segment."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.amplitude_traits import cohort_in
from tests.unit.consumers.meaning import meaning, normalized

SENDER = {"integration": {"name": "Amplitude Cohort Sync", "version": "1.0.0"}}


def identify(traits: object, context: object = None) -> dict[str, Any]:
    return {"type": "identify", "userId": "u1", "traits": traits, "context": context}


def from_amplitude(traits: object) -> dict[str, Any]:
    return identify(traits, SENDER)


def says(payload: object, **feed: Any) -> list[str]:
    return meaning(payload, format="segment", **feed)


@pytest.mark.parametrize(
    ("trait", "name", "cohort_id"),
    [
        ("Power users (7khm89cz)", "Power users", "7khm89cz"),
        ("[Amplitude] Power users (7khm89cz)", "Power users", "7khm89cz"),
        ("[Amplitude] Power users: 7khm89cz", "Power users", "7khm89cz"),
        ("cohort name:123", "cohort name", "123"),
        ("amplitude_Power users_7khm89cz", "Power users", "7khm89cz"),
        ("Power (EU) (7khm89cz)", "Power (EU)", "7khm89cz"),
        ("[Amplitude] Power (EU): 7khm89cz", "Power (EU)", "7khm89cz"),
        ("a: b: gs72ns", "a: b", "gs72ns"),
        ("EU: power (gs72ns)", "EU: power", "gs72ns"),
        ("amplitude_EU: power (all)_gs72ns", "EU: power (all)", "gs72ns"),
        ("amplitude_my_own_cohort_gs72ns", "my_own_cohort", "gs72ns"),
        ("[Amplitude] Saturday's & héllo (gs72ns)", "Saturday's & héllo", "gs72ns"),
    ],
)
def test_each_form_of_trait_names_its_cohort(trait: str, name: str, cohort_id: str) -> None:
    assert cohort_in(trait) == (cohort_id, name)


@pytest.mark.parametrize(
    "trait",
    ["", "email", "amplitude_id", "Power users", "(7kh)", ":7kh", "Power users ()", "a (b c)", "x" * 5000 + " (1)"],
)
def test_other_traits_name_none(trait: str) -> None:
    assert cohort_in(trait) is None


@pytest.mark.parametrize(
    "trait", ["Beta (c1)", "[Amplitude] Beta (c1)", "[Amplitude] Beta: c1", "Beta:c1", "amplitude_Beta_c1"]
)
@pytest.mark.parametrize(
    ("value", "sign"),
    [(True, "+"), (False, "-"), ("True", "+"), ("False", "-"), ("true", "+"), ("false", "-"), (0, "-")],
)
def test_all_forms_are_read_from_amplitudes_own_events(trait: str, value: object, sign: str) -> None:
    assert says(from_amplitude({trait: value})) == [f"{sign}u1 amplitude-c1"]


def test_other_traits_beside_a_cohort_do_not_matter() -> None:
    assert says(from_amplitude({"email": "e", "plan": None, "Beta (c1)": True})) == ["+u1 amplitude-c1"]


def test_an_event_of_amplitude_that_names_no_cohort_is_refused() -> None:
    assert says(from_amplitude({"email": "e"})) == ["invalid: cohort_id_missing"]
    assert says(from_amplitude(None)) == ["invalid: cohort_id_missing"]


@pytest.mark.parametrize("trait", ["[Amplitude] Beta (c1)", "[Amplitude] Beta: c1", "amplitude_Beta_c1"])
def test_a_trait_that_names_amplitude_needs_no_other_sign(trait: str) -> None:
    assert says(identify({trait: False, "email": "e"})) == ["-u1 amplitude-c1"]


@pytest.mark.parametrize(
    "traits", [{"Plan (gold)": True}, {"referrer:x": "true"}, {"[Amplitude] Session Id": 3}, {}, None, []]
)
def test_an_ordinary_identify_is_ignored(traits: object) -> None:
    assert says(identify(traits)) == ["ignored: not_an_audience"]


@pytest.mark.parametrize("value", [1_692_206_763, 1, 0, "u1", None, {}])
def test_an_ordinary_trait_that_begins_like_a_cohort_is_ignored(value: object) -> None:
    assert says(identify({"amplitude_session_id": value})) == ["ignored: not_an_audience"]


@pytest.mark.parametrize(
    ("value", "reason"), [(None, "value_missing"), ("perhaps", "value_invalid"), (2, "value_invalid")]
)
def test_an_event_whose_only_cohort_says_nothing_is_refused(value: object, reason: str) -> None:
    assert says(from_amplitude({"Beta (c1)": value})) == [f"invalid: {reason}"]
    assert says(identify({"[Amplitude] Beta (c1)": value})) == [f"invalid: {reason}"]


def test_of_several_cohorts_one_that_says_nothing_is_rejected_alone() -> None:
    payload = from_amplitude({"A (c1)": True, "B (c2)": "perhaps", "C (c3)": False})

    assert sorted(says(payload)) == ["+u1 amplitude-c1", "-u1 amplitude-c3", "0: value_invalid"]


def test_a_cohort_in_two_forms_is_one_change_and_the_last_wins() -> None:
    result = normalized(from_amplitude({"Beta (c1)": True, "[Amplitude] Beta: c1": False}), format="segment")

    assert [(group.included, list(group.context_keys)) for group in result.groups] == [(False, ["u1"])]
    assert result.conflicts == 1


def test_amplitudes_batch_of_identify_events_is_read() -> None:
    payload = {
        "batch": [from_amplitude({"Beta (c1)": True}), from_amplitude({"Beta (c1)": "False"}) | {"userId": "u2"}]
    }

    assert says(payload) == ["+u1 amplitude-c1", "-u2 amplitude-c1"]


def test_an_engage_audience_stays_one_also_where_amplitude_is_named() -> None:
    personas = {"computation_class": "audience", "computation_id": "aud_1", "computation_key": "Beta (c1)"}

    assert says(identify({"Beta (c1)": True}, {**SENDER, "personas": personas})) == ["+u1 segment-audiences-aud_1"]


@pytest.mark.parametrize("integration", ["Amplitude Cohort Sync", None, [], {"name": 3}, {"name": "Other"}, {}])
def test_only_the_integrations_name_makes_an_event_amplitudes(integration: object) -> None:
    assert says(identify({"Beta (c1)": True}, {"integration": integration})) == ["ignored: not_an_audience"]


def test_a_user_without_an_id_is_refused() -> None:
    assert says(from_amplitude({"Beta (c1)": True}) | {"userId": None}) == ["invalid: context_key_missing"]
