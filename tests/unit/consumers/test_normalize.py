"""What is the same for all formats: which of them reads a record, for which environment, at which version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumers.errors import SENTENCES, Ignored, InvalidRecord, Reason
from consumers.feeds import Environment, Environments, Feed, Limits
from consumers.normalize import Normalized, Normalizer
from consumers.record import Origin, Record
from stores.model import Version
from tests.builders import a_record
from tests.unit.consumers.meaning import NOW_MS, a_feed, a_normalizer, meaning_of

NOW_US = NOW_MS * 1000
ORIGIN = Origin("cohorts", 0, 0, NOW_MS)
WEBHOOK = {"cohort_id": "c1", "in_cohort": True, "users": [{"user_id": "u1"}]}
BATCH = {"batch": [{"userId": "u1", "cohortId": "c1", "value": True}]}


def a_message(payload: object = WEBHOOK, **headers: str) -> Record:
    pairs = tuple((name, value.encode()) for name, value in headers.items())
    return a_record(json.dumps(payload).encode(), headers=pairs)


def normalized(
    record: Record, normalizer: Normalizer | None = None, origin: Origin = ORIGIN, **feed: Any
) -> Normalized:
    settings = {"format": "amplitude-webhook", **feed}
    return (normalizer or a_normalizer()).normalize(
        record, a_feed(**settings), arrived_ms=origin.timestamp_ms, position=7
    )


def environment_of(record: Record, normalizer: Normalizer | None = None, **feed: Any) -> str:
    (group,) = normalized(record, normalizer, **feed).groups
    return group.segment.environment


def test_the_version_is_the_arrival_where_the_source_has_no_clock() -> None:
    (group,) = normalized(a_message()).groups

    assert group.version == Version(NOW_US, 7)


def test_a_replayed_record_has_the_time_of_its_first_arrival() -> None:
    (group,) = normalized(a_message(), origin=Origin("cohorts", 0, 0, 5)).groups

    assert group.version == Version(5000, 7)


@pytest.mark.parametrize(
    ("seconds_ahead", "time_us", "is_ahead"), [(300, NOW_US + 300_000_000, False), (301, NOW_US, True)]
)
def test_a_clock_that_is_too_far_ahead_is_not_believed(seconds_ahead: int, time_us: int, is_ahead: bool) -> None:
    result = normalized(a_message({**WEBHOOK, "computed_time": NOW_MS // 1000 + seconds_ahead}))

    assert [group.version.event_time_us for group in result.groups] == [time_us]
    assert result.future_event_time is is_ahead


def test_a_clock_in_milliseconds_is_one_that_is_ahead() -> None:
    assert normalized(a_message({**WEBHOOK, "computed_time": str(NOW_MS)})).future_event_time


def test_an_old_clock_is_believed() -> None:
    (group,) = normalized(a_message({**WEBHOOK, "computed_time": 1})).groups

    assert group.version.event_time_us == 1_000_000


def test_the_feeds_kind_is_the_members() -> None:
    assert [group.context_kind for group in normalized(a_message(), context_kind="device").groups] == ["device"]


def test_the_environment_is_the_payloads_then_the_headers_then_the_feeds() -> None:
    assert environment_of(a_message(BATCH), format="amplitude") == "production"
    assert environment_of(a_message(BATCH, environment="staging"), format="amplitude") == "staging"
    own = {**BATCH, "environmentId": "test"}
    assert environment_of(a_message(own, environment="staging"), format="amplitude") == "test"


def test_an_environment_may_be_called_by_its_client_side_id() -> None:
    environments = Environments((Environment(key="production", client_side_id="61a0"),))
    normalizer = Normalizer(environments=environments, limits=Limits())

    assert environment_of(a_message(environment="61a0"), normalizer) == "production"


def test_a_record_that_nobody_gives_an_environment_is_refused() -> None:
    with pytest.raises(InvalidRecord) as problem:
        normalized(a_message(), environment=None)

    assert problem.value.reason is Reason.ENVIRONMENT_MISSING


def test_what_it_says_can_be_seen_without_an_environment() -> None:
    parsed = a_normalizer().parse(a_message(), a_feed(format="amplitude-webhook", environment=None))

    assert parsed.environment is None
    assert [change.context_key for change in parsed.in_order() if hasattr(change, "context_key")] == ["u1"]


def test_a_record_for_another_environment_is_refused_or_skipped_as_configured() -> None:
    record = a_message(environment="staging")

    assert meaning_of(record, a_normalizer("production"), format="amplitude-webhook") == [
        "invalid: environment_unknown"
    ]
    skipped = normalized(record, a_normalizer("production", skip=True))
    assert (skipped.ignored, skipped.environment) == (Ignored.OTHER_ENVIRONMENT, "staging")


def unreadable(environment: str, integration: str = "fulcrum", value: bytes | None = b"{") -> Record:
    headers = {"environment": environment, "integration": integration}
    return a_record(value, headers=tuple((name, each.encode()) for name, each in headers.items() if each))


@pytest.mark.parametrize(
    ("integration", "value", "reason"),
    [
        ("unheard-of", b"{}", "integration_unknown"),
        ("", b"{}", "integration_unknown"),
        ("fulcrum", b"{", "json_invalid"),
        ("fulcrum", b"[]", "payload_invalid"),
        ("fulcrum", None, "value_empty"),
        ("fulcrum", b" " * 2_000, "record_too_large"),
        ("fulcrum", b"[" * 101 + b"]" * 101, "json_too_deep"),
    ],
)
def test_what_can_not_be_read_is_for_the_cell_whose_environment_its_header_names(
    integration: str, value: bytes | None, reason: str
) -> None:
    def says(environment: str, *, skip: bool = True) -> list[str]:
        normalizer = a_normalizer("production", skip=skip, limits=Limits(record_bytes=1_024))
        return meaning_of(unreadable(environment, integration, value), normalizer, format="header", environment=None)

    assert says("staging") == ["ignored: other_environment"]
    assert says("production") == [f"invalid: {reason}"]
    assert says("staging", skip=False) == [f"invalid: {reason}"]
    assert says("") == [f"invalid: {reason}"]


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_a_payload_that_names_an_environment_of_ours_is_ours_whatever_the_header_says(environment: str) -> None:
    value = b'{"environmentId": "production"}'

    said = meaning_of(unreadable(environment, value=value), a_normalizer("production", skip=True), format="header")

    assert said == ["invalid: no_members_field"]


@pytest.mark.parametrize("own_format", ["header", "amplitude", "segment"])
@pytest.mark.parametrize("integration", ["amplitude-webhook", "Amplitude-Webhook", "AMPLITUDE-WEBHOOK"])
def test_the_header_says_the_format_without_regard_to_case(own_format: str, integration: str) -> None:
    assert meaning_of(a_message(integration=integration), format=own_format) == ["+u1 amplitude-c1"]


def test_a_segment_key_has_the_integration_in_our_spelling() -> None:
    assert meaning_of(a_message(BATCH, integration="AMPLITUDE"), format="header") == ["+u1 amplitude-c1"]


@pytest.mark.parametrize(
    "record", [a_message(), a_message(integration=""), a_message(integration="nobody"), a_message(integration="header")]
)
def test_a_record_whose_format_nobody_knows_is_refused(record: Record) -> None:
    assert meaning_of(record, format="header") == ["invalid: integration_unknown"]


def test_a_header_that_is_no_text_is_an_unknown_integration() -> None:
    record = a_record(b"{}", headers=(("integration", b"\xff"),))

    assert meaning_of(record, format="header") == ["invalid: integration_unknown"]


def test_the_last_of_several_equal_headers_counts() -> None:
    record = a_record(json.dumps(BATCH).encode(), headers=(("integration", b"segment"), ("integration", b"amplitude")))

    assert meaning_of(record, format="header") == ["+u1 amplitude-c1"]


def test_other_headers_change_nothing() -> None:
    assert normalized(a_message(traceparent="00-1-2-01")) == normalized(a_message())


def test_an_ignored_record_yields_nothing() -> None:
    result = normalized(a_message({"users": []}))

    assert (result.groups, result.rejects, result.ignored) == ([], [], Ignored.NO_MEMBERS)


def test_no_problem_quotes_the_payload() -> None:
    record = a_message({**WEBHOOK, "cohort_id": {"secret": 1}}, integration="amplitude-webhook", environment="secret\0")

    with pytest.raises(InvalidRecord) as problem:
        a_normalizer().normalize(record, Feed(name="f", format="header"), arrived_ms=ORIGIN.timestamp_ms, position=7)

    assert "secret" not in str(problem.value)


def test_every_reason_has_a_sentence() -> None:
    assert set(SENTENCES) == {*Reason, *Ignored}
