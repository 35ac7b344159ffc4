"""What is kept back of a record that a topic still holds: whatever it says of people who were erased.

A log can't forget a record, but nobody is shown it, and nothing of it is sent again. In a list, the entry of such a
person is left out, with all that it says; where the record is no list, all of it is about that person. Who was erased
is only known by a salted hash, so every text of the record is asked for. Once anybody was erased, a record in which not
every text can be found is kept back as a whole: one that is cut or no JSON, or has a name twice in one object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from consumers.dead_letter import HEADER_PREFIX
from consumers.record import ORIGINAL_PREFIX, Record
from stores.parts import in_parts
from stores.postgres.erasing import Erasures

_WORD = re.compile(r"[^\s\"',;<>(){}\[\]|\\]+")
_PART = re.compile(r"[^\W_]+|[\W_]")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_JSON_STARTS = ("{", "[", '"')
_KEY_SEPARATOR = "/"
_MOST_TEXTS = 10_000
"""So many are asked for at once."""
_MOST_PARTS = 100
"""Of a record's key or a header, whose spans are all asked for."""
_MOST_LEVELS = 8
"""JSON may stand within a string of JSON, and that again."""


class UnreadableError(Exception):
    """It can't be told who is named here."""


class _AboutThemError(Exception):
    """It is no list, so nothing of it is about anybody else."""


async def without_erased(record: Record, erasures: Erasures) -> Record | None:
    """The record without those who were erased; None where nobody else may be shown. Unchanged where it names none."""
    if not await erasures.exist():
        return record
    erased: set[str] = set()
    try:
        for texts in in_parts(texts_of(record), _MOST_TEXTS):
            erased |= await erasures.among(texts)
    except UnreadableError:
        return None
    return without(record, erased) if erased else record


def texts_of(record: Record) -> set[str]:
    """Everything in a record that may be a context key. Raises `UnreadableError`."""
    theirs = (each for each in record.headers if not _is_ours(each[0]))
    return {
        *_spans(_text(record.key)),
        *(span for header in theirs for span in _spans_of(header)),
        *_texts(_document(record.value)),
    }


def without(record: Record, erased: set[str]) -> Record | None:
    """The record without any of these; None where it is about nobody else. Raises `UnreadableError`."""
    document = _document(record.value)
    try:
        kept = _without(document, erased)
        value = record.value if kept == document else json.dumps(kept, ensure_ascii=False).encode()
    except (_AboutThemError, RecursionError):
        return None
    return msgspec.structs.replace(
        record,
        key=None if _names(_spans(_text(record.key)), erased) else record.key,
        value=value,
        headers=tuple(each for each in record.headers if _is_ours(each[0]) or not _names(_spans_of(each), erased)),
    )


def _is_ours(header: str) -> bool:
    """Whether we wrote it: those hold no context keys, and say where the record belongs."""
    return header.startswith((HEADER_PREFIX, ORIGINAL_PREFIX))


def _document(value: bytes | None) -> object:
    """The value as JSON. Raises `UnreadableError`."""
    try:
        return _loaded(value or b"null")
    except ValueError:
        raise UnreadableError from None


def _loaded(text: str | bytes) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise UnreadableError from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UnreadableError
    return found


def _texts(document: object) -> Iterator[str]:
    """Everything in it that may be a context key, also in JSON that stands within a string."""
    waiting = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, (str, int, float)) and not isinstance(each, bool):
            yield from _words(str(each))
            if isinstance(each, str) and each.lstrip().startswith(_JSON_STARTS):
                with suppress(ValueError):  # a text that only begins so
                    waiting.append(_loaded(each))


def _words(text: str) -> Iterator[str]:
    """The text, its words, and what stands behind a slash in them, as in the keys of records; escapes decoded, too."""
    for level in _levels(text):
        for word in (level, *_WORD.findall(level)):
            yield word
            if _KEY_SEPARATOR in word:
                yield word.partition(_KEY_SEPARATOR)[2]


def _spans(text: str) -> Iterator[str]:
    """Every stretch of the text that begins and ends between two words: where in it the key is, producers decide."""
    for level in _levels(text):
        parts = _PART.findall(level)
        if len(parts) > _MOST_PARTS:
            raise UnreadableError
        for start in range(len(parts)):
            for end in range(start, len(parts)):
                yield "".join(parts[start : end + 1])


def _spans_of(header: tuple[str, bytes | None]) -> Iterator[str]:
    yield from _spans(header[0])
    yield from _spans(_text(header[1]))


def _levels(text: str) -> Iterator[str]:
    """The text, and what it is with the escapes of JSON decoded, until there are none."""
    for _ in range(_MOST_LEVELS):
        yield text
        # Two halves of a surrogate pair become the character that they are.
        decoded = _ESCAPE.sub(_character, text).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if decoded == text:
            return
        text = decoded
    raise UnreadableError


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else _ESCAPED.get(escape[2], escape[2])


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
