"""What is kept back of a record that a topic still holds: whatever it says of people who were erased.

A log can't forget a record, but nobody is shown it, and nothing of it is sent again. In a list, the entry of such a
person is left out, with all that it says; where the record is no list, all of it is about that person. Who was erased
is only known by a salted hash, so every text of the record is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec

from consumers.dead_letter import HEADER_PREFIX
from consumers.record import ORIGINAL_PREFIX, Record
from stores.parts import in_parts
from stores.postgres.erasing import Erasures

_WORD = re.compile(r"[^\s\"',;<>(){}\[\]|\\]+")
_KEY_SEPARATOR = "/"
_MOST_TEXTS = 10_000
"""So many are asked for at once."""


class _AboutThemError(Exception):
    """It is no list, so nothing of it is about anybody else."""


async def without_erased(record: Record, erasures: Erasures) -> Record | None:
    """The record without those who were erased; None where it is about nobody else. Unchanged where it names none."""
    if not await erasures.exist():
        return record
    erased: set[str] = set()
    for texts in in_parts(texts_of(record), _MOST_TEXTS):
        erased |= await erasures.among(texts)
    return without(record, erased) if erased else record


def texts_of(record: Record) -> set[str]:
    """Everything in a record that may be a context key."""
    headers = (value for name, value in record.headers if not _is_ours(name))
    outside = (text for raw in (record.key, *headers) for text in _words(_text(raw)))
    return {*outside, *_texts(_document(record.value))}


def without(record: Record, erased: set[str]) -> Record | None:
    """The record without any of these; None where it is about nobody else."""
    document = _document(record.value)
    try:
        kept = _without(document, erased)
        value = record.value if kept == document else json.dumps(kept, ensure_ascii=False).encode()
    except (_AboutThemError, RecursionError):
        return None
    return msgspec.structs.replace(
        record,
        key=None if _names(_words(_text(record.key)), erased) else record.key,
        value=value,
        headers=tuple(
            each for each in record.headers if _is_ours(each[0]) or not _names(_words(_text(each[1])), erased)
        ),
    )


def _is_ours(header: str) -> bool:
    """Whether we wrote it: those hold no context keys, and say where the record belongs."""
    return header.startswith((HEADER_PREFIX, ORIGINAL_PREFIX))


def _document(value: bytes | None) -> object:
    """The value as JSON; where it is none, as the words that it holds."""
    try:
        return json.loads(value or b"null")
    except (ValueError, RecursionError):
        return dict.fromkeys(_words(_text(value)))


def _texts(document: object) -> Iterator[str]:
    """Everything in it that may be a context key."""
    waiting = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, (str, int)) and not isinstance(each, bool):
            yield from _words(str(each))


def _words(text: str) -> Iterator[str]:
    """The text, its words, and what stands behind a slash in it, as in the keys of records."""
    yield text
    for word in _WORD.findall(text):
        yield word
        if _KEY_SEPARATOR in word:
            yield word.partition(_KEY_SEPARATOR)[2]


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


def _names(texts: Iterator[str], erased: set[str]) -> bool:
    return not erased.isdisjoint(texts)


def _without(document: object, erased: set[str]) -> object:
    """The document, with nothing in its outermost lists that names them. Raises `_AboutThemError`."""
    if isinstance(document, list):
        return [each for each in document if not _names(_texts(each), erased)]
    if isinstance(document, dict):
        if _names((text for name in document for text in _words(name)), erased):
            raise _AboutThemError
        return {name: _without(value, erased) for name, value in document.items()}
    if _names(_texts(document), erased):
        raise _AboutThemError
    return document
