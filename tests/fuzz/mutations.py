"""Changes of a payload: of its structure, value by value, and of its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from tests.fuzz.samples import Sample

T = TypeVar("T")

Edit = tuple[int, int, bytes]
"""What stands from here to there becomes this."""

_TEXTS = (
    *("", " ", "\t\n", "\u3000", "\0", "u\0", "x" * 513, "é" * 257, "x" * 1_025, "😀", "e\u0301", "\u202egnp.exe"),
    *("\ufeff", "\u2028", "\x7f", "I", "İ", "ß", "\uffff", "true", "True", "TRUE", "false", "False", "0", "1", "-1"),
    *("add", "remove", "members", " REMOVE ", "delete", "audience exited", "Deleted", "identify", "track", "audience"),
    *("someone-7f3a9c@example.com", "another-81d2e0@example.com", "id:4711-0815", "[Amplitude] Beta (c1)", "A:b"),
    *("amplitude_beta_c1", "production", "staging", "test-client-id", "1692206763", "1692206763.5", "99999999999999"),
    *("2023-08-16T17:26:03", "2023-08-16", "2023-W33-3T17:26:03Z", "2023-08-16T24:00:00Z", "s" * 257, "10", "0010"),
    *("2023-08-16T17:26:03Z", "2023-08-16t17:26:03z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"),
)
_VALUES = (
    *(b"null", b"true", b"false", b"0", b"1", b"-1", b"2", b"-0", b"1.0", b"0.0", b"-0.0", b"4.2", b"1e3", b"1E400"),
    *(b"9007199254740993", b"18446744073709551616", b"-9223372036854775809", b"1" * 400, b"0." + b"3" * 400),
    *(b"7" * 5_000, b"-" + b"7" * 5_000, b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\u0041dd"', b'"\\/"'),
    *(b"[]", b"{}", b"[[]]", b"[{}]", b"[null]", b'{"":{}}', b'{"0":{}}', b'["u1"]', b'{"id":"u1"}', b'[["u1",true]]'),
)
_NO_JSON = (
    *(b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b".5", b"1.", b"0x10", b"tru", b"undefined", b"'a'", b'"', b""),
    *(b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\x"', b'"\\u12"', b'"\x01"', b'"a\nb"'),
    *(b'["\\ud800",' + b"7" * 5_000 + b"]", b'{"id":"\\udc00","n":' + b"7" * 5_000 + b"}"),
    *(b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf4\x90\x80\x80"'),
)
_DEEP = tuple(
    opening * depth + b"1" + closing * depth
    for depth in (5, 30, 98, 101, 1_200)
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"batch":', b"}]"))
)
_ODD = (*(json.dumps(text, ensure_ascii=False).encode() for text in _TEXTS), *_VALUES)
_BYTES = (b"\0", b"\xff", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\xc3", b"//")
_BOM = b"\xef\xbb\xbf"
_NO_JSON_SHARE = 0.08


def one_of(random: Random, items: Sequence[T]) -> T:
    # Several times as fast as random.choice, and no input needs its evenness.
    return items[int(random.random() * len(items))]


def odd(random: Random) -> bytes:
    """A value that nobody expects, and now and then none at all."""
    return one_of(random, _NO_JSON if random.random() < _NO_JSON_SHARE else _ODD)


def mutated(random: Random, sample: Sample, donor: Sample) -> bytes:
    """A payload made from this one, and with parts of the donor."""
    roll = random.random()
    if roll < 0.02:
        return sample.text
    text = sample.text if roll < 0.1 else edited(random, sample, donor)
    if roll < 0.2:
        for _ in range(1 + int(random.random() * 3)):
            text = one_of(random, _OF_BYTES)(random, text, donor.text)
    return text


def edited(random: Random, sample: Sample, donor: Sample) -> bytes:
    """The payload with a few values, members or names changed."""
    edits: list[Edit] = []
    for _ in range(one_of(random, (1, 1, 1, 2, 2, 3, 5))):
        edits += one_of(random, _OF_STRUCTURE)(random, sample, donor)
    parts: list[bytes] = []
    text, end = sample.text, 0
    for start, stop, new in sorted(edits):
        if start >= end:  # what lies within something that is changed already stays away
            parts += text[end:start], new
            end = stop
    return b"".join((*parts, text[end:]))


def _change(random: Random, sample: Sample, _donor: Sample) -> list[Edit]:
    return [(*one_of(random, sample.values), odd(random))]


def _take(random: Random, sample: Sample, donor: Sample) -> list[Edit]:
    return [(*one_of(random, sample.values), donor.value(int(random.random() * len(donor.values))))]


def _swap(random: Random, sample: Sample, _donor: Sample) -> list[Edit]:
    first, second = one_of(random, sample.values), one_of(random, sample.values)
    return [(*first, sample.text[slice(*second)]), (*second, sample.text[slice(*first)])]


def _delete(random: Random, sample: Sample, _donor: Sample) -> list[Edit]:
    if not sample.items:
        return []
    start, stop = one_of(random, sample.items)
    if sample.text[stop : stop + 1] == b",":
        return [(start, stop + 1, b"")]
    return [(start - (sample.text[start - 1 : start] == b","), stop, b"")]


def _repeat(random: Random, sample: Sample, donor: Sample) -> list[Edit]:
    """The member once more, sometimes with another value: the name twice in an object, a twin in a list."""
    if not sample.items:
        return []
    start, stop = one_of(random, sample.items)
    item = sample.text[start:stop]
    twin = item
    if random.random() < 0.5 and (name := item.partition(b":")[0]) != item and name.endswith(b'"') and item[0] == 34:
        twin = name + b":" + (odd(random) if random.random() < 0.5 else donor.value(0))
    return [(start, stop, item + b"," + twin)]


def _flip(random: Random, sample: Sample, _donor: Sample) -> list[Edit]:
    """A twin of the member with every membership the other way, before or after it."""
    if not sample.items:
        return []
    start, stop = one_of(random, sample.items)
    item = sample.text[start:stop]
    twin = item.replace(b"true", b"\0").replace(b"false", b"true").replace(b"\0", b"false")
    return [(start, stop, item + b"," + twin if random.random() < 0.5 else twin + b"," + item)]


def _rename(random: Random, sample: Sample, donor: Sample) -> list[Edit]:
    if not sample.names or not donor.names:
        return []
    new = donor.text[slice(*one_of(random, donor.names))] if random.random() < 0.8 else odd(random)
    return [(*one_of(random, sample.names), new)]


def _add(random: Random, sample: Sample, donor: Sample) -> list[Edit]:
    """A member of the donor beside one of the payload's."""
    if not sample.items or not donor.items:
        return []
    start, _ = one_of(random, sample.items)
    return [(start, start, donor.text[slice(*one_of(random, donor.items))] + b",")]


def _wrap(random: Random, sample: Sample, _donor: Sample) -> list[Edit]:
    start, stop = one_of(random, sample.values)
    before, after = one_of(random, ((b"[", b"]"), (b'{"id":', b"}"), (b'"', b'"'), (b"[[", b"]]"), (b'{"0":', b"}")))
    return [(start, start, before), (stop, stop, after)]


def _deepen(random: Random, sample: Sample, _donor: Sample) -> list[Edit]:
    if random.random() < 0.9:  # they are long, and all alike
        return _wrap(random, sample, sample)
    return [(*one_of(random, sample.values), one_of(random, _DEEP))]


_OF_STRUCTURE: tuple[Callable[[Random, Sample, Sample], list[Edit]], ...] = (
    *(_change, _change, _change, _take, _take, _swap, _delete, _repeat, _flip, _rename, _add, _wrap, _deepen),
)


def _turn(random: Random, text: bytes, _other: bytes) -> bytes:
    if not text:
        return text
    place = int(random.random() * len(text))
    return text[:place] + bytes((text[place] ^ (1 << int(random.random() * 8)),)) + text[place + 1 :]


def _cut(random: Random, text: bytes, _other: bytes) -> bytes:
    place = int(random.random() * (len(text) + 1))
    return text[:place] if random.random() < 0.7 else text[place:]


def _leave_out(random: Random, text: bytes, _other: bytes) -> bytes:
    place = int(random.random() * (len(text) + 1))
    return text[:place] + text[place + int(random.random() * 20) :]


def _insert(random: Random, text: bytes, _other: bytes) -> bytes:
    place = int(random.random() * (len(text) + 1))
    return text[:place] + (one_of(random, _BYTES) if random.random() < 0.5 else odd(random)) + text[place:]


def _splice(random: Random, text: bytes, other: bytes) -> bytes:
    return text[: int(random.random() * (len(text) + 1))] + other[int(random.random() * (len(other) + 1)) :]


def _mark(random: Random, text: bytes, _other: bytes) -> bytes:
    return _BOM + text if random.random() < 0.8 else b" \n" + text


_OF_BYTES: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    _turn,
    _turn,
    _cut,
    _leave_out,
    _insert,
    _splice,
    _mark,
)
