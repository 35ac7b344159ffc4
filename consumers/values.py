"""The rules that every format shares: what can be a context key, a membership, a cohort's id, name and link.

A function takes a decoded JSON value and the pointer to it. What it cannot use, it raises as `InvalidValue`, with a
detail that says the pointer and what is wrong there. A detail never quotes the value: values are people.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from consumers.errors import InvalidRecord, InvalidValue, Reason
from stores.model import is_context_kind

MISSING: Final = msgspec.UNSET
"""Stands for a property that is not there, which is not the same as one that is null."""

COHORT_ID_BYTES = 1024
NAME_CHARACTERS = 512
URL_CHARACTERS = 2048

_WIDEST = 4
"""Bytes that a character has in UTF-8 at most."""

_MEMBERSHIP: Final[dict[str | int, bool]] = {
    **dict.fromkeys(("true", "True", "1", 1), True),
    **dict.fromkeys(("false", "False", "0", 0), False),
}


def context_key(value: object, pointer: str, max_bytes: int) -> str:
    """The context key that this id is: text as it stands, or an integer in decimal."""
    if value is MISSING or value is None:
        raise _absent(value, pointer, Reason.CONTEXT_KEY_MISSING)
    text = value if isinstance(value, str) else _text_of(value, pointer, Reason.CONTEXT_KEY_INVALID)
    if "\0" in text:
        raise _holds_nul(pointer, Reason.CONTEXT_KEY_INVALID)
    if not text or text.isspace():
        raise InvalidValue(Reason.CONTEXT_KEY_BLANK, f"{pointer} is blank")
    if len(text) * _WIDEST > max_bytes and len(text.encode()) > max_bytes:
        raise InvalidValue(Reason.CONTEXT_KEY_TOO_LONG, f"{pointer} has more than {max_bytes} bytes")
    return text


def context_keys(values: Sequence[str | int], max_bytes: int) -> list[str] | None:
    """All of them as context keys, where all can be used and no two are the same; otherwise None, to look at each.

    The same rules as in `context_key`, asked of all ids at once.
    """
    texts = [value if type(value) is str else str(value) for value in values]
    joined = "".join(texts)
    widest = 1 if joined.isascii() else _WIDEST
    if (
        "\0" in joined
        or not all(texts)
        or any(map(str.isspace, texts))
        or max(map(len, texts), default=0) * widest > max_bytes
        or len(set(texts)) != len(texts)
    ):
        return None
    return texts


def membership(value: object, pointer: str) -> bool:
    """Whether this says in or out. What says neither clearly is refused, never taken for out."""
    if value is True or value is False:
        return value
    if value is MISSING or value is None:
        raise _absent(value, pointer, Reason.VALUE_MISSING)
    # By type first: 1.0 would be found under 1.
    included = _MEMBERSHIP.get(value) if isinstance(value, (str, int)) else None
    if included is None:
        raise InvalidValue(Reason.VALUE_INVALID, f"{pointer} is neither true nor false")
    return included


def cohort_id(value: object, pointer: str) -> str:
    """The id of a cohort, under the same rules as a context key."""
    if value is MISSING or value is None:
        raise _absent(value, pointer, Reason.COHORT_ID_MISSING)
    text = value if isinstance(value, str) else _text_of(value, pointer, Reason.COHORT_ID_INVALID)
    if "\0" in text:
        raise _holds_nul(pointer, Reason.COHORT_ID_INVALID)
    if not text or text.isspace():
        raise InvalidValue(Reason.COHORT_ID_INVALID, f"{pointer} is blank")
    if len(text) * _WIDEST > COHORT_ID_BYTES and len(text.encode()) > COHORT_ID_BYTES:
        raise InvalidValue(Reason.COHORT_ID_INVALID, f"{pointer} has more than {COHORT_ID_BYTES} bytes")
    return text


def cohort_name(value: object) -> str | None:
    """The name, cut to a length that people read, or None: a name decides nothing, so an odd one is no error."""
    if not isinstance(value, str):
        return None
    # PostgreSQL has no place for NUL in a text.
    name = value.replace("\0", "")[:NAME_CHARACTERS]
    return None if not name or name.isspace() else name


def cohort_url(value: object) -> str | None:
    """The link, or None where it is none or too long: a link that is cut leads nowhere."""
    usable = isinstance(value, str) and value and len(value) <= URL_CHARACTERS and "\0" not in value
    return str(value) if usable else None


def context_kind(value: object, pointer: str, default: str) -> str:
    """The kind that the record names, or the feed's."""
    if value is MISSING or value is None or value == "":
        return default
    if not isinstance(value, str) or not is_context_kind(value):
        raise InvalidRecord(Reason.CONTEXT_KIND_INVALID, f"{pointer} is not a context kind")
    return value


def properties_of(value: object) -> dict[str, object]:
    """The properties of an object; none where it is something else."""
    return value if isinstance(value, dict) else {}


def _text_of(value: object, pointer: str, reason: Reason) -> str:
    if isinstance(value, int) and not isinstance(value, bool):  # to Python, true is an integer; it is nobody's id
        return str(value)
    raise InvalidValue(reason, f"{pointer} is neither a string nor an integer")


def _holds_nul(pointer: str, reason: Reason) -> InvalidValue:
    return InvalidValue(reason, f"{pointer} holds a NUL character")


def _absent(value: object, pointer: str, reason: Reason) -> InvalidValue:
    return InvalidValue(reason, f"{pointer} is {'missing' if value is MISSING else 'null'}")
