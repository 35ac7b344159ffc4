"""What is noted of rejected members, so that people find who is missing from a segment. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

import msgspec

from consumers.document import decode_raw
from consumers.errors import InvalidRecord, Reason, Reject
from consumers.normalize import Normalized
from consumers.record import Record
from consumers.segment_key import segment_of
from stores.model import Clearing, SegmentChange, SegmentKey
from stores.postgres.rejects import RejectedMember

MOST_OF_RECORD = 200
MOST_SEGMENTS_OF_MEMBER = 5
"""One event may name hundreds of audiences."""
LARGEST_LOOKED_AT = 4 << 20
"""To find a member again its record is decoded once more."""
MEMBER_CHARACTERS = 512
WHOLE_RECORD = -1
_POINTER = re.compile(r"(?:/[^\s:/]+)+")


def reject_notes(record: Record, normalized: Normalized) -> list[RejectedMember]:
    """The first rejects of a record, each for every segment that it would have changed.

    Where that can't be read from the member it is the record's, if that is about one alone.
    """
    about = {each.segment for each in (*normalized.groups, normalized.clearing) if each is not None}
    shared = list(about) if len(about) == 1 else []
    document = _document(record)
    return [
        RejectedMember(
            segment,
            normalized.position,
            WHOLE_RECORD if each.place is None else each.place,
            each.reason,
            each.detail,
            None if each.place is None else _member(document, each.detail),
        )
        for each in normalized.rejects[:MOST_OF_RECORD]
        for segment in _segments(each, normalized.environment)[:MOST_SEGMENTS_OF_MEMBER] or shared
    ]


def notes_of_refused(change: SegmentChange, reason: Reason, detail: str) -> list[RejectedMember]:
    """The first of these deltas, which were understood and can't be stored."""
    if isinstance(change, Clearing):
        return [RejectedMember(change.segment, change.version.position, WHOLE_RECORD, reason, detail, None)]
    return [
        RejectedMember(change.segment, change.version.position, place, reason, detail, _short(key))
        for key, place in islice(zip(change.context_keys, change.places, strict=True), MOST_OF_RECORD)
    ]


def _segments(reject: Reject, environment: str | None) -> list[SegmentKey]:
    if environment is None:
        return []
    cohorts = dict.fromkeys((each.integration, each.cohort_id) for each in reject.cohorts)
    return [segment_of(environment, *cohort) for cohort in cohorts]


def _document(record: Record) -> object:
    value = record.value or b""
    try:
        return decode_raw(value) if len(value) <= LARGEST_LOOKED_AT else None
    except InvalidRecord:
        return None


def _member(document: object, detail: str) -> str | None:
    """The member that the detail's pointer leads to or into, as JSON. A long one is not: half a key is nobody's."""
    found = _POINTER.match(detail)
    for value in _steps(document, found.group().split("/")[1:] if found else []):
        return _short(value)
    return None


def _short(member: object) -> str | None:
    text = msgspec.json.encode(member).decode()
    return text if len(text) <= MEMBER_CHARACTERS else None


def _steps(document: object, tokens: list[str]) -> Iterator[object]:
    """What stands at the first place in a list on this way."""
    for token in tokens:
        if isinstance(document, list):
            if token.isdecimal() and len(token) < len(str(LARGEST_LOOKED_AT)) and int(token) < len(document):
                yield document[int(token)]
            return
        document = document.get(token) if isinstance(document, dict) else None
