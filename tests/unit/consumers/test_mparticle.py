"""mParticle's messages: who a profile is, what its audiences say, and which messages are about audiences at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.parsed import Operation
from stores.model import Cohort
from tests.builders import a_record
from tests.unit.consumers.meaning import a_feed, a_normalizer, as_json, meaning, normalized, rejects

ADD, DELETE, UPDATE = ("add", "delete", "attribute_update")
SAYS_RAW, SAYS_DELETE = ("raw", "", None), (DELETE, "remove", " DELETE")
NO_COHORT = "invalid: cohort_id_missing"
NOTHING = "ignored: no_membership_change"


def identity(kind: str = "customer", value: object = "u1", encoding: object = "raw") -> dict[str, object]:
    return {"type": kind, "encoding": encoding, "value": value}


def audience(audience_id: object = 1, action: object = ADD) -> dict[str, object]:
    return {"audience_id": audience_id, "audience_name": "One", "action": action}


def profile(*audiences: object, identities: object = None, **others: object) -> dict[str, object]:
    found = [identity()] if identities is None else identities
    return {"user_identities": found, "audiences": list(audiences), **others}


def message(*profiles: object, **others: object) -> dict[str, Any]:
    changes = {"type": "audience_membership_change_request", "timestamp_ms": 1_714_592_744_065}
    return {**changes, "user_profiles": list(profiles), **others}


def subscription(action: object) -> dict[str, Any]:
    return {"type": "audience_subscription_request", "audience_id": 1, "audience_name": "One", "action": action}


def meant(payload: object, **feed: Any) -> list[str]:
    return meaning(payload, format="mparticle", **feed)


ROWS: list[tuple[str, Any, list[str]]] = [
    ("added", message(profile(audience())), ["+u1 mparticle-1"]),
    ("deleted", message(profile(audience(action=DELETE))), ["-u1 mparticle-1"]),
    ("in-any-case", message(profile(audience(action=" Delete "))), ["-u1 mparticle-1"]),
    (
        "one-profile-in-many-audiences",
        message(profile(audience(1), audience(2, UPDATE), audience(3, DELETE))),
        ["+u1 mparticle-1", "-u1 mparticle-3"],
    ),
    ("only-attributes", message(profile(audience(action=UPDATE))), [NOTHING]),
    ("an-unknown-action", message(profile(audience(1, "drop"), audience(2))), ["0: unknown_action", "+u1 mparticle-2"]),
    ("no-action", message(profile(audience(1, None), audience(2))), ["0: unknown_action", "+u1 mparticle-2"]),
    ("no-audience-id", message(profile(audience(None), audience(2))), ["0: cohort_id_missing", "+u1 mparticle-2"]),
    ("an-audience-that-is-none", message(profile("x", audience(2))), ["0: member_invalid", "+u1 mparticle-2"]),
    ("a-profile-that-is-none", message(None, profile(audience())), ["0: member_invalid", "+u1 mparticle-1"]),
    (
        "audiences-that-are-none",
        message({"audiences": 3}, profile(audience())),
        ["0: member_list_invalid", "+u1 mparticle-1"],
    ),
    ("no-audiences", message({}, profile(audience())), ["0: no_members_field", "+u1 mparticle-1"]),
    ("empty-audiences", message(profile()), ["ignored: no_members"]),
    ("null-for-audiences", message({"audiences": None}, profile(audience())), ["+u1 mparticle-1"]),
    ("removed", message(profile(audience(action="remove"))), ["-u1 mparticle-1"]),
    ("the-last-mention", message(profile(audience()), profile(audience(action=DELETE))), ["-u1 mparticle-1"]),
    ("nobody-of-that-type", message(profile(audience(), identities=[])), ["0: context_key_missing"]),
    ("identities-that-are-none", message(profile(audience(), identities="x")), ["0: context_key_missing"]),
    ("hashed", message(profile(audience(), identities=[identity(encoding="sha-256")])), ["0: context_key_hashed"]),
    (
        "hashed-in-no-known-way",
        message(profile(audience(), identities=[identity(encoding=5)])),
        ["0: context_key_hashed"],
    ),
    ("nobody-whose-attributes-change", message(profile(audience(1, UPDATE), identities=[])), [NOTHING]),
    ("an-id-that-is-none", message(profile(audience(), identities=[identity(value=1.5)])), ["0: context_key_invalid"]),
    (
        "a-hash-beside-the-id",
        message(profile(audience(), identities=[identity(encoding="md5"), identity()])),
        ["+u1 mparticle-1"],
    ),
    ("no-encoding-is-raw", message(profile(audience(), identities=[identity(encoding=None)])), ["+u1 mparticle-1"]),
    ("verification", {"type": "audience_membership_change_request"}, ["ignored: no_members"]),
    ("no-profiles", message(), ["ignored: no_members"]),
    ("profiles-that-are-none", message(user_profiles={"a": 1}), ["invalid: member_list_invalid"]),
    ("subscribed", subscription("add"), [NOTHING]),
    ("changed", subscription("update"), [NOTHING]),
    ("unsubscribed", subscription("remove"), ["drain mparticle-1"]),
    ("unknown-lifecycle", subscription("pause"), ["invalid: unknown_action"]),
    ("a-members-action-drains-nobody", subscription("delete"), ["invalid: unknown_action"]),
    ("the-end-of-no-audience", {"type": "audience_subscription_request", "action": "remove"}, [NO_COHORT]),
    ("another-message", {"type": "event_processing_request"}, ["ignored: not_an_audience"]),
    ("no-type", {"user_profiles": []}, ["invalid: payload_invalid"]),
    ("no-object", [], ["invalid: payload_invalid"]),
]


@pytest.mark.parametrize(("payload", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_message_means(payload: Any, expected: list[str]) -> None:
    assert meant(payload) == expected


EVERYBODY = message(
    profile(
        audience(),
        identities=[identity("customer", "c1"), identity("email", "5f4d", "md5"), identity("Email", "a@example.com")],
        device_identities=[identity("ios_advertising_id", "device")],
        partner_identities=[identity("partner_id", "partner")],
        mpid="12345",
    )
)


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ("user_id", "c1"),
        ("customer", "c1"),
        ("email", "a@example.com"),
        ("email:md5", "5f4d"),
        ("ios_advertising_id", "device"),
        ("partner_id", "partner"),
        ("mpid", "12345"),
        ("facebook_or_email", "a@example.com"),
        ("user_id_or_email", "c1"),
    ],
)
def test_the_feed_says_which_identity_is_the_context_key(rule: str, key: str) -> None:
    assert meant(EVERYBODY, context_key=rule) == [f"+{key} mparticle-1"]


def encoded(*encodings: str) -> dict[str, Any]:
    return message(profile(audience(), identities=[identity("email", word, word) for word in encodings], mpid="12345"))


@pytest.mark.parametrize(
    ("rule", "encodings", "expected"),
    [
        ("email", ["MD5", " Raw "], "+ Raw  mparticle-1"),
        ("email", ["sha-256"], "0: context_key_hashed"),
        ("email:md5", ["sha-256", "md5"], "+md5 mparticle-1"),
        ("email:md5", ["sha-256"], "0: context_key_hashed"),
        ("email:md5", ["raw"], "0: context_key_missing"),
        ("email:md5_or_mpid", ["raw"], "+12345 mparticle-1"),
        ("mpid:md5", ["raw"], "0: context_key_missing"),
    ],
)
def test_of_a_type_the_encoding_counts_that_the_feed_asks_for(rule: str, encodings: list[str], expected: str) -> None:
    assert meant(encoded(*encodings), context_key=rule) == [expected]


def test_places_count_the_pairs_of_profile_and_audience() -> None:
    payload = message(
        profile(audience(1, UPDATE), audience(2, "secret"), identities=[]),
        "secret",
        profile(audience({"secret": 1}), audience(4, UPDATE), "secret", audience(6), identities=[identity(value=" ")]),
    )

    assert rejects(payload, format="mparticle") == {
        1: "/user_profiles/0/audiences/1/action is none of the actions that the integration has",
        2: "/user_profiles/1: it is not an object",
        3: "/user_profiles/2/audiences/0/audience_id is neither a string nor an integer",
        5: "/user_profiles/2/audiences/2: it is not an object",
        6: "/user_profiles/2/user_identities/0/value is blank",
    }


def test_a_profile_that_is_nobody_is_rejected_for_each_audience_that_changes() -> None:
    nobody = "/user_profiles/0: it has no identity of the type that the feed's context_key says"

    assert rejects(
        message(profile(audience(1), audience(2, UPDATE), audience(3, DELETE), identities=[])), format="mparticle"
    ) == {0: nobody, 2: nobody}


@pytest.mark.parametrize(("name", "kept"), [("Two", "Two"), (None, None), (7, None)])
def test_an_audience_has_its_own_name_or_none(name: object, kept: str | None) -> None:
    payload = message(profile({"audience_id": 2, "audience_name": name, "action": ADD}))

    (group,) = normalized(payload, format="mparticle", cohort_id="c9", cohort_name="Nine").groups

    assert group.cohort == Cohort("mparticle", "2", kept)


def test_the_end_of_a_subscription_has_the_messages_clock() -> None:
    ended = {**subscription("Remove"), "timestamp_ms": 1_714_592_744_065}

    parsed = a_normalizer().parse(a_record(as_json(ended)), a_feed(format="mparticle"))

    assert parsed.operation == Operation(Cohort("mparticle", "1", "One"), None, 1_714_592_744_065_000)


@pytest.mark.parametrize(
    ("clock", "time_us"),
    [
        (1_714_592_744_065, 1_714_592_744_065_000),
        ("1714592744065", 1_714_592_744_065_000),
        (1_714_592_744_065.25, 1_714_592_744_065_250),
        (None, None),
        ("x", None),
        ("", None),
        (0, None),
        (-1, None),
        (True, None),
        ([], None),
        (1e300, None),
        ("9" * 400, None),
    ],
)
def test_the_clock_is_in_milliseconds(clock: object, time_us: int | None) -> None:
    record = a_record(as_json(message(profile(audience()), timestamp_ms=clock)))

    parsed = a_normalizer().parse(record, a_feed(format="mparticle"))

    assert [changes.event_time_us for changes in parsed.changes] == [time_us]


WORDS = st.sampled_from(
    [ADD, DELETE, "remove", " DELETE", UPDATE, "drop", "", None, 0, False, "raw", "md5", "u1", "u2"]
)
AUDIENCES = st.fixed_dictionaries({"audience_id": st.sampled_from([1, "2", None]), "action": WORDS}) | WORDS
IDENTITIES = st.fixed_dictionaries({"type": st.just("customer"), "encoding": WORDS, "value": WORDS}) | WORDS
PROFILES = st.fixed_dictionaries(
    {"user_identities": st.lists(IDENTITIES, max_size=3), "audiences": st.lists(AUDIENCES, max_size=3) | WORDS}
)


@settings(max_examples=300)
@given(st.lists(PROFILES | WORDS, min_size=1, max_size=3))
def test_nobody_leaves_whose_own_audience_does_not_say_delete(profiles: list[Any]) -> None:
    changes = normalized(message(*profiles), format="mparticle").groups
    left = {(key, group.cohort.cohort_id) for group in changes if not group.included for key in group.context_keys}

    assert left <= set(deletions(profiles))


def deletions(profiles: list[Any]) -> Iterator[tuple[str, str]]:
    for each in (one for one in profiles if isinstance(one, dict)):
        raw = [one["value"] for one in each["user_identities"] if isinstance(one, dict) and one["encoding"] in SAYS_RAW]
        for one in each["audiences"] if isinstance(each["audiences"], list) else ():
            if isinstance(one, dict) and one["action"] in SAYS_DELETE:
                yield from ((str(value), str(one["audience_id"])) for value in raw)


def test_a_record_of_another_cell_is_skipped_before_it_is_read() -> None:
    assert meaning(b"{", a_normalizer("staging", skip=True), format="mparticle") == ["ignored: other_environment"]
