"""What is noted of rejected members."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from consumers.feeds import Environments, Feed, Limits
from consumers.normalize import Normalizer
from stores.postgres.rejects import NotedReject, RejectedMember
from tests.builders import a_record
from worker.gateway.rejected_report import as_csv, as_json
from worker.reject_notes import MEMBER_CHARACTERS, MOST_OF_RECORD, reject_notes

FEED = Feed(name="f", format="amplitude-webhook", environment="production")


def notes(*users: object, form: str = "amplitude-webhook", payload: Any = None) -> list[RejectedMember]:
    payload = payload or {"cohort_id": "c1", "in_cohort": True, "users": list(users)}
    record = a_record(json.dumps(payload).encode())
    normalizer = Normalizer(environments=Environments(), limits=Limits())
    feed = Feed(name="f", format=form, environment="production")
    return reject_notes(record, normalizer.normalize(record, feed, arrived_ms=0, position=7))


def test_a_rejected_member_is_noted_as_it_was_with_its_place_and_reason() -> None:
    bad = {"user_id": None, "user_properties": {"name": "Anna"}}

    [null, text] = notes({"user_id": "u1"}, bad, "no object")

    assert null.segment == ("production", "amplitude-c1")
    assert (null.position, null.place, null.reason) == (7, 1, "context_key_missing")
    assert json.loads(null.member or "") == bad
    assert (text.place, text.reason, text.member) == (2, "member_invalid", '"no object"')


def test_members_are_found_in_lists_that_lie_deeper() -> None:
    lists = {"add": [{"id": "u1"}, {"id": ""}], "remove": [{"id": 1.5}]}
    payload = {"environmentId": "production", "cohortId": "c1", "cohortName": "C", "listData": lists}

    assert [each.member for each in notes(form="rudderstack", payload=payload)] == ['{"id":""}', '{"id":1.5}']


def test_what_is_noted_of_one_record_and_of_one_member_is_bounded() -> None:
    many = notes({"user_id": "u1"}, *[{"user_id": None, "x": "a" * MEMBER_CHARACTERS}] * (MOST_OF_RECORD + 50))

    assert len(many) == MOST_OF_RECORD
    assert many[0].member is None  # cut, it might end within a key


ENGAGE = {"computation_class": "audience", "computation_key": "vips", "computation_id": "aud_1"}


def test_a_member_is_noted_for_the_segment_that_it_would_have_joined_though_its_record_is_about_several() -> None:
    batch = [{"userId": user, "cohortId": cohort, "value": True} for user, cohort in (("u1", "c1"), ("", "c2"))]
    payload = {"environmentId": "production", "batch": [*batch, {"userId": "u2", "value": 1.5, "cohortId": "c3"}]}

    assert [(each.segment.key, each.reason) for each in notes(form="amplitude", payload=payload)] == [
        ("amplitude-c2", "context_key_blank"),
        ("amplitude-c3", "value_invalid"),
    ]


def test_where_neither_member_nor_record_says_which_segment_nothing_is_noted() -> None:
    batch = [{"userId": "u1", "cohortId": cohort, "value": True} for cohort in ("c1", "c2")]
    payload = {"environmentId": "production", "batch": [*batch, {"userId": "u3", "value": True}]}

    assert notes(form="amplitude", payload=payload) == []


@pytest.mark.parametrize(
    ("form", "payload", "segments"),
    [
        ("amplitude-webhook", {"cohort_id": "c1", "in_cohort": True, "users": [{"user_id": None}]}, ["amplitude-c1"]),
        (
            "amplitude-webhook",
            [{"user_id": "", "amplitude_A_c1": True, "amplitude_B_c2": False}],
            ["amplitude-c1", "amplitude-c2"],
        ),
        (
            "mparticle",
            {
                "type": "audience_membership_change_request",
                "user_profiles": [{"audiences": [{"audience_id": 7, "action": "add"}]}],
            },
            ["mparticle-7"],
        ),
        (
            "segment",
            {"type": "track", "properties": {"audience_key": "vips", "vips": True}, "context": {"personas": ENGAGE}},
            ["segment-audiences-aud_1"],
        ),
        ("rudderstack", {"listData": {"add": [{"id": ""}]}, "cohortId": "c1", "cohortName": "C"}, ["rudderstack-c1"]),
    ],
)
def test_a_record_of_which_no_member_is_understood_is_noted_too(form: str, payload: Any, segments: list[str]) -> None:
    assert sorted({each.segment.key for each in notes(form=form, payload=payload)}) == segments


def test_the_report_counts_reasons_and_no_cell_is_a_formula() -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    rejects = [
        NotedReject("t", 0, 5, 3, "member_invalid", "=1+1", '"a,b"', at),
        NotedReject("t", 0, 6, None, "x", "y", None, at),
    ]

    assert as_json(rejects)["byReason"] == {"member_invalid": 1, "x": 1}
    [first, second] = csv.DictReader(io.StringIO(as_csv(rejects)))
    assert (first["member"], first["detail"], first["place"]) == ('"a,b"', "'=1+1", "3")
    assert (second["member"], second["place"], second["rejected_at"]) == ("", "", "2026-11-23T00:00:00.000000Z")
