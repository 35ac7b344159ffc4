"""Heap's signature over the raw bytes, with its time window."""

from __future__ import annotations

import pytest

from worker.gateway.answers import Refused
from worker.gateway.heap_signature import check_signature, signature

SECRET, NOW_S = b"shared", 1_700_000_000.0
BODY = b'{"a": 1.0, "b":"\\u00e9"}'


def header(ts_ms: float = NOW_S * 1000, body: bytes = BODY, secret: bytes = SECRET) -> str:
    ts = str(round(ts_ms))
    return f"ts:{ts},hmac:{signature(body, secret, ts)}"


def test_a_fresh_signature_of_these_bytes_is_taken() -> None:
    # Made with: printf '%s' '1700000000000{"a":1}' | openssl dgst -sha256 -hmac shared -binary | base64
    vector = "ts:1700000000000,hmac:rYAV92BRBCT/xX1SVqt+8M9TUAk6gPRbzblRLmwyclw="
    check_signature([vector], b'{"a":1}', SECRET, now_s=NOW_S)
    check_signature([header()], BODY, SECRET, now_s=NOW_S)
    check_signature([header()], BODY, SECRET, now_s=NOW_S + 59)
    check_signature([header()], BODY, SECRET, now_s=NOW_S - 0.9)


@pytest.mark.parametrize(
    ("headers", "body", "now_s"),
    [
        ([], BODY, NOW_S),
        ([header(), header()], BODY, NOW_S),
        (["nonsense"], BODY, NOW_S),
        (["ts:x,hmac:y"], BODY, NOW_S),
        ([header()], b'{"a":1.0,"b":"\\u00e9"}', NOW_S),
        ([header(secret=b"other")], BODY, NOW_S),
        ([header()], BODY, NOW_S + 61),
        ([header()], BODY, NOW_S - 2),
        ([header().replace("ts:1", "ts:2")], BODY, NOW_S),
    ],
)
def test_everything_else_is_refused_alike(headers: list[str], body: bytes, now_s: float) -> None:
    with pytest.raises(Refused) as refused:
        check_signature(headers, body, SECRET, now_s=now_s)
    assert (refused.value.status, refused.value.code) == (403, "forbidden")
