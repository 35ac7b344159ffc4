"""Values for tests: each call names only what the test cares about."""

from __future__ import annotations

from collections.abc import Sequence

from consumers.record import Record
from stores.model import Clearing, Cohort, DeltaGroup, Page, Position, SegmentKey, Version

A_TIME_US = 1_692_206_763_000_000


def a_version(event_time_us: int = A_TIME_US, offset: int = 0, *, topic_id: int = 1, partition: int = 0) -> Version:
    return Version(event_time_us, Position(topic_id, partition, offset).pack())


def a_group(  # noqa: PLR0913 - a builder names everything that may matter
    *context_keys: str,
    segment: str = "amplitude-beta",
    environment: str = "production",
    context_kind: str = "user",
    included: bool = True,
    version: Version | None = None,
    name: str | None = "Beta",
    url: str | None = None,
) -> DeltaGroup:
    keys: Sequence[str] = context_keys or ("u1",)
    return DeltaGroup(
        segment=SegmentKey(environment, segment),
        cohort=Cohort("amplitude", segment.removeprefix("amplitude-"), name, url),
        context_kind=context_kind,
        included=included,
        version=version or a_version(),
        context_keys=list(keys),
        places=range(len(keys)),
    )


def a_clearing(  # noqa: PLR0913 - a builder names everything that may matter
    session: str | None = None,
    page: int = 1,
    pages: int | None = None,
    *,
    segment: str = "amplitude-beta",
    drain: bool = False,
    version: Version | None = None,
) -> Clearing:
    """A page of a replace session, or a drain."""
    return Clearing(
        segment=SegmentKey("production", segment),
        cohort=Cohort("amplitude", segment.removeprefix("amplitude-"), "Beta"),
        context_kind="user",
        version=version or a_version(),
        page=None if drain else Page(session, page, pages),
    )


def a_record(  # noqa: PLR0913 - a builder names everything that may matter
    value: bytes | None = b"{}",
    *,
    topic: str = "cohorts",
    partition: int = 0,
    offset: int = 0,
    timestamp_ms: int = A_TIME_US // 1000,
    key: bytes | None = None,
    headers: tuple[tuple[str, bytes], ...] = (),
) -> Record:
    return Record(topic, partition, offset, timestamp_ms, key, value, headers)
