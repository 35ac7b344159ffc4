"""JSON records in a file: one a line, or a single document over many lines. Read one by one, in flat memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LARGEST_DOCUMENT_BYTES = 64 << 20
"""A single document over many lines is looked for up to this size."""
_BOM = b"\xef\xbb\xbf"
_SKIPPED_AT_ONCE = 1 << 20


class Line(NamedTuple):
    """A record and its zero-based line. Where it is larger than asked for, `value` is cut and `size` is not."""

    number: int
    value: bytes
    size: int


def json_records(file: BinaryIO, largest: int) -> Iterator[Line]:
    """The records of a file. Of values with more bytes than `largest` only the beginning is read.

    A blank line is a record without a value; at the end of the file it is nothing.
    """
    first = file.readline(LARGEST_DOCUMENT_BYTES)
    if _is_json(first):
        return _lines(_replayed(first, file), largest)
    text = first + file.read(LARGEST_DOCUMENT_BYTES)
    if _is_json(text):
        return iter([Line(0, text.strip(), len(text.strip()))])
    return _lines(_replayed(text, file), largest)


def _lines(file: BinaryIO, largest: int) -> Iterator[Line]:
    blank: list[int] = []
    number = -1
    for number, (text, size) in enumerate(_sized_lines(file, largest)):
        if not text:
            blank.append(number)
            continue
        yield from (Line(earlier, b"", 0) for earlier in blank)
        blank.clear()
        yield Line(number, text, size)
    if blank and len(blank) == number + 1:
        yield Line(0, b"", 0)


def _sized_lines(file: BinaryIO, largest: int) -> Iterator[tuple[bytes, int]]:
    """Each line without its end, cut where it is longer than allowed, and its whole size."""
    longest = largest + 2  # room for the end of the line
    while text := file.readline(longest):
        rest = _skip_line(file) if len(text) == longest and not text.endswith(b"\n") else 0
        text = text.removesuffix(b"\n").removesuffix(b"\r")
        yield text, len(text) + rest


def _skip_line(file: BinaryIO) -> int:
    """How many bytes were left of this line."""
    size = 0
    while text := file.readline(_SKIPPED_AT_ONCE):
        size += len(text.removesuffix(b"\n").removesuffix(b"\r"))
        if text.endswith(b"\n"):
            break
    return size


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text.removeprefix(_BOM), type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _replayed(head: bytes, tail: BinaryIO) -> BinaryIO:
    """The file as if nothing of it had been read yet."""
    return io.BufferedReader(_Joined(io.BytesIO(head), tail), 1 << 20)


class _Joined(io.RawIOBase):
    def __init__(self, *files: BinaryIO) -> None:
        self._files = files

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer)
        for file in self._files:
            if data := file.read(len(room)):
                room[: len(data)] = data
                return len(data)
        return 0
