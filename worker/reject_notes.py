"""What is noted of rejected members, so that people find who is missing from a segment. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from consumers.document import decode_raw
from consumers.errors import InvalidRecord
from consumers.normalize import Normalized
from consumers.record import Record
from stores.postgres.rejects import RejectedMember

MOST_OF_RECORD = 200
LARGEST_LOOKED_AT = 4 << 20
"""To find a member again its record is decoded once more."""
MEMBER_CHARACTERS = 512
WHOLE_RECORD = -1
_POINTER = re.compile(r"(?:/[^\s:/]+)+")


def reject_notes(record: Record, normalized: Normalized) -> list[RejectedMember]:
    """The first rejects of a record that is about one segment. Of one that is about several nobody can say whose."""
    about = [*normalized.groups, *((normalized.clearing,) if normalized.clearing else ())]
    segments = {each.segment for each in about}
    if len(segments) != 1:
        return []
    [segment], position = segments, about[0].version.position
    rejects = normalized.rejects[:MOST_OF_RECORD]
    document = _document(record)
    return [
        RejectedMember(
            segment,
            position,
            WHOLE_RECORD if each.place is None else each.place,
            each.reason,
            each.detail,
            None if each.place is None else _member(document, each.detail),
        )
        for each in rejects
    ]


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
        text = msgspec.json.encode(value).decode()
        return text if len(text) <= MEMBER_CHARACTERS else None
    return None


def _steps(document: object, tokens: list[str]) -> Iterator[object]:
    """What stands at the first place in a list on this way."""
    for token in tokens:
        if isinstance(document, list):
            if token.isdecimal() and len(token) < len(str(LARGEST_LOOKED_AT)) and int(token) < len(document):
                yield document[int(token)]
            return
        document = document.get(token) if isinstance(document, dict) else None
