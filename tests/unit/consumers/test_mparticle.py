"""mParticle's messages: who a profile is, what its audiences say, and which messages are about audiences at all."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import a_record
from tests.unit.consumers.meaning import a_feed, a_normalizer, as_json, meaning, rejects

ADD, DELETE, UPDATE = ("add", "delete", "attribute_update")


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
    ("only-attributes", message(profile(audience(action=UPDATE))), ["ignored: no_membership_change"]),
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
    ("nobody-of-that-type", message(profile(audience(), identities=[])), ["0: context_key_missing"]),
    ("identities-that-are-none", message(profile(audience(), identities="x")), ["0: context_key_missing"]),
    ("hashed", message(profile(audience(), identities=[identity(encoding="sha-256")])), ["0: context_key_hashed"]),
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
    ("subscribed", subscription("add"), ["ignored: no_membership_change"]),
    ("changed", subscription("update"), ["ignored: no_membership_change"]),
    ("unsubscribed", subscription("remove"), ["drain mparticle-1"]),
    ("unknown-lifecycle", subscription("pause"), ["invalid: unknown_action"]),
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


def test_a_member_that_is_not_told_apart_names_its_profile() -> None:
    assert rejects(message(profile(audience(), identities=[])), format="mparticle") == {
        0: "/user_profiles/0: it has no identity of the type that the feed's context_key says"
    }


@pytest.mark.parametrize(("clock", "time_us"), [(1_714_592_744_065, 1_714_592_744_065_000), ("x", None), (0, None)])
def test_the_clock_is_in_milliseconds(clock: object, time_us: int | None) -> None:
    record = a_record(as_json(message(profile(audience()), timestamp_ms=clock)))

    parsed = a_normalizer().parse(record, a_feed(format="mparticle"))

    assert [changes.event_time_us for changes in parsed.changes] == [time_us]
