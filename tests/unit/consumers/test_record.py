from __future__ import annotations

import pytest

from consumers.errors import InvalidRecord, Reason
from consumers.record import Origin, origin_of
from tests.builders import a_record

REPLAYED = {"topic": b"cohorts.amplitude", "partition": b"3", "offset": b"42", "timestamp": b"1692206763000"}


def headers(**parts: bytes | None) -> tuple[tuple[str, bytes], ...]:
    merged = {**REPLAYED, **parts}
    return tuple((f"cohort-sync-original-{name}", value) for name, value in merged.items() if value is not None)


def test_a_record_that_is_not_replayed_is_its_own_origin() -> None:
    record = a_record(topic="cohorts", partition=1, offset=5, timestamp_ms=9)

    assert origin_of(record) == Origin("cohorts", 1, 5, 9)
    assert origin_of(a_record(topic="t", timestamp_ms=9, headers=(("integration", b"x"),))) == Origin("t", 0, 0, 9)


def test_a_replayed_record_keeps_its_first_origin() -> None:
    assert origin_of(a_record(headers=headers())) == Origin("cohorts.amplitude", 3, 42, 1_692_206_763_000)


@pytest.mark.parametrize("part", ["partition", "offset", "timestamp"])
@pytest.mark.parametrize(
    "value",
    [None, b"", b" 1", b"+1", b"-1", b"1.0", b"1_0", b"0x1", b"\xff", "\u0661".encode(), b"9" * 30, b"9" * 5000],
)
def test_a_number_that_is_missing_or_malformed_is_refused(part: str, value: bytes | None) -> None:
    with pytest.raises(InvalidRecord) as problem:
        origin_of(a_record(headers=headers(**{part: value})))

    assert problem.value.reason is Reason.ORIGIN_INVALID


@pytest.mark.parametrize("topic", [None, b"", b"a b", b"a/b", b"\xff", "é".encode(), b"t\0", b"t" * 250])
def test_a_topic_that_kafka_cannot_have_is_refused(topic: bytes | None) -> None:
    with pytest.raises(InvalidRecord, match="original-topic"):
        origin_of(a_record(headers=headers(topic=topic)))


@pytest.mark.parametrize(
    ("part", "value"), [("partition", 1 << 12), ("offset", 1 << 42), ("timestamp", 253_402_300_800_000)]
)
def test_an_origin_that_no_version_can_hold_is_refused(part: str, value: int) -> None:
    assert origin_of(a_record(headers=headers(**{part: b"%d" % (value - 1)})))
    with pytest.raises(InvalidRecord, match=f"original-{part}"):
        origin_of(a_record(headers=headers(**{part: b"%d" % value})))
