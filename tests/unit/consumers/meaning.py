"""What a payload means, in a few words a line, so that a test can show a payload and its meaning side by side."""

from __future__ import annotations

import json
from typing import Any

from consumers.errors import InvalidRecord, Reject
from consumers.feeds import Environment, Environments, Feed, Limits
from consumers.normalize import Normalized, Normalizer
from consumers.parsed import Change, Operation
from consumers.record import Record, origin_of
from consumers.segment_key import segment_key
from tests.builders import a_record

NOW_MS = 1_700_000_000_000


def a_feed(**settings: Any) -> Feed:
    return Feed(**{"name": "feed", "format": "amplitude", "environment": "production", **settings})


def as_json(payload: object) -> bytes:
    return payload if isinstance(payload, bytes) else json.dumps(payload).encode()


def a_normalizer(*environments: str, limits: Limits | None = None, skip: bool = False) -> Normalizer:
    listed = tuple(Environment(key=key) for key in environments)
    return Normalizer(environments=Environments(listed), limits=limits or Limits(), skip_unknown_environment=skip)


def normalized(payload: object, normalizer: Normalizer | None = None, **feed: Any) -> Normalized:
    record = a_record(as_json(payload), timestamp_ms=NOW_MS)
    return (normalizer or a_normalizer()).normalize(
        record, a_feed(**feed), arrived_ms=origin_of(record).timestamp_ms, position=7
    )


def meaning(payload: object, normalizer: Normalizer | None = None, **feed: Any) -> list[str]:
    """What would happen, in the order of the document.

    `+u1 amplitude-c1` joins and `-u1 …` leaves; `2: reason` is a rejected member; `invalid: …` and `ignored: …` are all
    of the record.
    """
    return meaning_of(a_record(as_json(payload), timestamp_ms=NOW_MS), normalizer, **feed)


def meaning_of(record: Record, normalizer: Normalizer | None = None, **feed: Any) -> list[str]:
    try:
        parsed = (normalizer or a_normalizer()).parse(record, a_feed(**feed))
    except InvalidRecord as problem:
        return [f"invalid: {problem.reason}"]
    if parsed.ignored:
        return [f"ignored: {parsed.ignored}"]
    return [_in_words(item) for item in parsed.in_order()]


def rejects(payload: object, **feed: Any) -> dict[int | None, str]:
    return {reject.place: reject.detail for reject in normalized(payload, **feed).rejects}


def _in_words(item: Operation | Change | Reject) -> str:
    if isinstance(item, Operation):
        key, page = segment_key(item.cohort.integration, item.cohort.cohort_id), item.page
        which = f" {page.session} {page.number}/{page.pages or '?'}" if page else ""
        return f"{item.name} {key}{which}"
    if isinstance(item, Reject):
        return f"{item.place}: {item.reason}"
    return f"{'+' if item.included else '-'}{item.context_key} {item.segment_key}"
