"""What a value must be before any format reads it. Every format gives the same answer."""

from __future__ import annotations

import time

import pytest

from consumers.document import checked, decode
from consumers.errors import InvalidRecord, Reason
from consumers.feeds import Limits
from consumers.formats import known_integrations
from tests.builders import a_record
from tests.unit.consumers.meaning import a_normalizer, meaning, meaning_of

DEEP = 1_000_000
BAD: list[tuple[str, bytes | None, Reason]] = [
    ("null-record", None, Reason.VALUE_EMPTY),
    ("empty", b"", Reason.VALUE_EMPTY),
    ("nothing-but-a-byte-order-mark", b"\xef\xbb\xbf", Reason.VALUE_EMPTY),
    ("spaces", b"  \n", Reason.JSON_INVALID),
    ("no-json", b"user_id=1", Reason.JSON_INVALID),
    ("cut-off", b'{"a":', Reason.JSON_INVALID),
    ("something-after-the-end", b'{"a":1} x', Reason.JSON_INVALID),
    ("two-documents", b"{}\n{}", Reason.JSON_INVALID),
    ("python", b"{'a': True}", Reason.JSON_INVALID),
    ("trailing-comma", b'{"a":[1,]}', Reason.JSON_INVALID),
    ("nan", b'{"a":NaN}', Reason.JSON_INVALID),
    ("infinity", b'{"a":[-Infinity]}', Reason.JSON_INVALID),
    ("control-character", b'{"a":"\x01"}', Reason.JSON_INVALID),
    ("lone-surrogate", b'{"a":"\\ud800"}', Reason.JSON_INVALID),
    ("lone-low-surrogate", b'{"\\udc00":1}', Reason.JSON_INVALID),
    ("lone-surrogate-beside-a-huge-integer", b'{"b":' + b"9" * 5000 + b',"a":"\\ud800"}', Reason.JSON_INVALID),
    ("nan-beside-a-huge-integer", b'{"b":' + b"9" * 5000 + b',"a":NaN}', Reason.JSON_INVALID),
    ("latin-1", b'{"a":"\xe9"}', Reason.JSON_INVALID),
    ("a-surrogate-in-utf-8", b'{"a":"\xed\xa0\x80"}', Reason.JSON_INVALID),
    ("utf-16", '{"a":1}'.encode("utf-16"), Reason.JSON_INVALID),
    ("ten-megabytes", b'{"a":"' + b"x" * 10_000_000 + b'"}', Reason.RECORD_TOO_LARGE),
    ("lists-2000-deep", b"[" * 2000 + b"]" * 2000, Reason.JSON_TOO_DEEP),
    ("objects-2000-deep", b'{"a":' * 2000 + b"1" + b"}" * 2000, Reason.JSON_TOO_DEEP),
    ("a-million-deep", b"[" * DEEP + b"]" * DEEP, Reason.JSON_TOO_DEEP),
    ("a-million-deep-and-cut-off", b"[" * DEEP, Reason.JSON_TOO_DEEP),
    ("a-million-objects-deep-and-cut-off", b'{"a":' * DEEP, Reason.JSON_TOO_DEEP),
    ("deep-behind-a-wide-list", b"[" + b"{}," * 5000 + b"[" * 200 + b"]" * 201, Reason.JSON_TOO_DEEP),
]


@pytest.mark.parametrize("integration", known_integrations())
@pytest.mark.parametrize(("value", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_value_is_refused_by_every_format(value: bytes | None, reason: Reason, integration: str) -> None:
    assert meaning_of(a_record(value), format=integration) == [f"invalid: {reason}"]


GOOD: list[tuple[str, bytes]] = [
    ("byte-order-mark", b'\xef\xbb\xbf{"users":[]}'),
    ("just-deep-enough", b'{"users":[],"x":' + b"[" * 99 + b"]" * 99 + b"}"),
    ("brackets-in-a-string", b'{"users":[],"x":"' + b"[{" * 500 + b'"}'),
    ("brackets-behind-an-escaped-quote", b'{"users":[],"x":"\\"' + b"[" * 500 + b'"}'),
    ("wide-and-flat", b'{"users":[],"x":[' + b"{}," * 5000 + b"[]]}"),
    ("a-huge-integer", b'{"users":[],"x":' + b"9" * 5000 + b"}"),
    ("a-huge-float", b'{"users":[],"x":1e999}'),
    ("a-pair-of-surrogates", b'{"users":[],"x":"\\ud83d\\ude00"}'),
    ("the-last-of-two-equal-keys", b'{"users":3,"users":[]}'),
]


@pytest.mark.parametrize("value", [row[1] for row in GOOD], ids=[row[0] for row in GOOD])
def test_an_unusual_value_is_read(value: bytes) -> None:
    assert meaning(value, format="amplitude-webhook") == ["ignored: no_members"]


def test_a_value_of_just_the_allowed_size_is_read() -> None:
    value = b'{"users":[]}'

    assert meaning(value, a_normalizer(limits=Limits(record_bytes=12)), format="amplitude-webhook") == [
        "ignored: no_members"
    ]
    assert meaning(value, a_normalizer(limits=Limits(record_bytes=11))) == ["invalid: record_too_large"]


@pytest.mark.parametrize("depth", [4, 5, 100])
@pytest.mark.parametrize("nested", ["[" * 101, "{" * 101, "[{" * 51, "{[" * 51])
def test_one_level_more_than_allowed_is_too_deep(nested: str, depth: int) -> None:
    def levels(count: int) -> bytes:
        closing = nested[:count][::-1].translate(str.maketrans("[{", "]}"))
        return f"{nested[:count]}{closing}".encode()

    assert checked(levels(depth), Limits(json_depth=depth))
    with pytest.raises(InvalidRecord, match=f"deeper than {depth}"):
        checked(levels(depth + 1), Limits(json_depth=depth))


def test_a_generous_limit_does_not_let_the_decoder_overflow() -> None:
    value = b"[" * 5000 + b"]" * 5000

    with pytest.raises(InvalidRecord) as problem:
        decode(checked(value, Limits(json_depth=10_000)))

    assert problem.value.reason is Reason.JSON_TOO_DEEP


@pytest.mark.parametrize("value", [b"[" * 100 + b"]" * 100, b"[]", b'"["', b'{"a":"]"}', b"[{"])
def test_no_value_of_the_largest_size_holds_the_loop_for_a_second(value: bytes) -> None:
    large = value * (Limits().record_bytes // len(value))

    started = time.process_time()
    assert meaning(large, format="amplitude-webhook")[0].startswith("invalid: json_")

    assert time.process_time() - started < 1.5


def test_integers_of_any_length_keep_their_digits_or_become_useless() -> None:
    assert decode(b"[123456789012345678901234567890]") == [123456789012345678901234567890]
    assert decode(b"[123456789012345678901234567890, %s]" % (b"9" * 5000)) == [
        123456789012345678901234567890,
        float("inf"),
    ]
