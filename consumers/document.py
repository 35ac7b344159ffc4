"""The first look at a record's value: whether it is JSON that is safe to decode, and what it says."""

from __future__ import annotations

import json
import re
from itertools import accumulate

import msgspec

from consumers.errors import InvalidRecord, Reason
from consumers.feeds import Limits
from consumers.values import MISSING

_BOM = b"\xef\xbb\xbf"
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord(bracket): 1 if bracket in "[{" else -1 for bracket in "[]{}"}
_PASSES = 4
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

# Floats come from `float`, so that 1e999 is infinity, which no rule takes, and does not cost the record.
_DECODER = msgspec.json.Decoder(float_hook=float)


def checked(value: bytes | None, limits: Limits) -> bytes:
    """The value without its byte order mark, after the checks that must come before any decoding."""
    if value is not None and len(value) > limits.record_bytes:
        raise InvalidRecord(Reason.RECORD_TOO_LARGE, f"the value has {len(value)} bytes, allowed {limits.record_bytes}")
    text = (value or b"").removeprefix(_BOM)
    if not text:
        raise InvalidRecord(Reason.VALUE_EMPTY, "the record has no value")
    # A typed decoder skips over what it does not know without looking at its bytes.
    if not text.isascii():
        _check_utf8(text)
    if _is_deeper(text, limits.json_depth):
        raise InvalidRecord(Reason.JSON_TOO_DEEP, f"the value is nested deeper than {limits.json_depth} levels")
    return text


def decode(value: bytes) -> object:
    """The whole value as Python objects, for what a format's own typed decoder does not take."""
    try:
        return _DECODER.decode(value)
    except msgspec.ValidationError:
        return _decode_with_huge_integers(value)
    except msgspec.DecodeError as exc:
        raise not_json(exc) from None
    except RecursionError:
        raise InvalidRecord(Reason.JSON_TOO_DEEP, "the value is nested too deep to be decoded") from None


def decode_raw(value: bytes) -> object:
    """The same of a value as it came, which may begin with a byte order mark."""
    return decode(value.removeprefix(_BOM))


def member_list(found: object, pointer: str, *, may_be_null: bool = True) -> list[object]:
    """The list of members that stands there; null is an empty one, where it may be."""
    if found is MISSING:
        raise InvalidRecord(Reason.NO_MEMBERS_FIELD, f"{pointer} is missing")
    if not isinstance(found, list) and not (found is None and may_be_null):
        raise InvalidRecord(Reason.MEMBER_LIST_INVALID, f"{pointer} is not a list")
    return found or []


def not_json(problem: msgspec.DecodeError) -> InvalidRecord:
    """The error for a value that is no JSON. A decoder's message tells the place, and no content."""
    return InvalidRecord(Reason.JSON_INVALID, f"the value is not valid JSON: {problem}")


def _check_utf8(text: bytes) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidRecord(Reason.JSON_INVALID, f"the value is not UTF-8 at byte {exc.start}") from None


def _is_deeper(text: bytes, limit: int) -> bool:
    """Whether brackets are nested deeper than this. Costs a table look-up a byte, as nearly all text is no bracket."""
    brackets = text.translate(None, _NOT_BRACKETS)
    if len(brackets) <= limit or not _without_inner_levels(brackets, limit):
        return False
    # Only now is it worth the time to leave out the brackets inside strings, and to follow each of the others.
    brackets = _STRING.sub(b"", text).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > limit


def _without_inner_levels(brackets: bytes, limit: int) -> bytes:
    """What remains after removing the innermost levels, a few and never more than `limit`. A flat batch has two."""
    # One pass removes an innermost {} and then perhaps the [] around it.
    for _ in range(min(limit // 2, _PASSES)):
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    return brackets


def _decode_with_huge_integers(value: bytes) -> object:
    """Decode a value with an integer of so many digits that Python refuses it: such a number is no use to any rule."""
    try:
        document: object = json.loads(value.decode(), parse_int=_integer_or_infinity, parse_constant=_refuse)
        # Unlike the other decoder, this one lets lone surrogates pass.
        json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise InvalidRecord(Reason.JSON_TOO_DEEP, "the value is nested too deep to be decoded") from None
    except ValueError:
        raise InvalidRecord(Reason.JSON_INVALID, "the value is not valid JSON") from None
    return document


def _integer_or_infinity(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float("inf")


def _refuse(constant: str) -> object:
    raise ValueError(constant)
