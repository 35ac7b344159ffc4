"""Record: what arrives from Kafka, without any type of the Kafka client."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from consumers.errors import InvalidRecord, Reason
from stores.model import OFFSET_BITS, PARTITION_BITS

ORIGINAL_PREFIX = "cohort-sync-original-"

_ORIGIN_PARTS = ("topic", "partition", "offset", "timestamp")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NUMBER = re.compile(r"[0-9]{1,15}")
_LATEST_MS = 253_402_300_800_000
"""The year 10000, where Python's calendar ends."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """Raw bytes with the place they came from. `timestamp_ms` is the broker's (or the producer's) record time."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    def header(self, name: str) -> str | None:
        """The last header of this name as text (undecodable bytes are replaced); None where it is missing or null."""
        for key, value in reversed(self.headers):
            if key == name:
                return None if value is None else value.decode("utf-8", "replace")
        return None


class Origin(NamedTuple):
    """The place and time by which a record is versioned: its own, or those of its first arrival when it is replayed."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def origin_of(record: Record) -> Origin:
    """Where and when this record first arrived: its own place, or what the headers of a replayed one say."""
    if not record.headers or not any(name.startswith(ORIGINAL_PREFIX) for name, _ in record.headers):
        return Origin(record.topic, record.partition, record.offset, record.timestamp_ms)
    texts = [record.header(ORIGINAL_PREFIX + part) or "" for part in _ORIGIN_PARTS]
    topic, partition, offset, timestamp = texts
    if not _TOPIC.fullmatch(topic):
        raise _invalid("topic")
    return Origin(
        topic,
        _number("partition", partition, 1 << PARTITION_BITS),
        _number("offset", offset, 1 << OFFSET_BITS),
        _number("timestamp", timestamp, _LATEST_MS),
    )


def _number(part: str, text: str, limit: int) -> int:
    if not _NUMBER.fullmatch(text) or int(text) >= limit:
        raise _invalid(part)
    return int(text)


def _invalid(part: str) -> InvalidRecord:
    return InvalidRecord(
        Reason.ORIGIN_INVALID, f"the header {ORIGINAL_PREFIX}{part} is missing, malformed or out of range"
    )
