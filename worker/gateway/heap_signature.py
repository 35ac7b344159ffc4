"""Heap's signature: `Heap-Hash: ts:<ms>,hmac:<base64>`, over the time and the raw bytes of the body. Pure."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence

from worker.gateway.answers import forbidden

OLDEST_S = 60.0
AHEAD_S = 1.0
_HEADER = re.compile(r"\s*ts:(?P<ts>[0-9]{1,15})\s*,\s*hmac:(?P<hmac>[A-Za-z0-9+/=]{1,88})\s*")
_NEVER_SIGNED = "ts:0,hmac:AAAA"


def signature(body: bytes, secret: bytes, ts: str) -> str:
    """What Heap writes behind `hmac:`."""
    return base64.b64encode(hmac.digest(secret, ts.encode() + body, "sha256")).decode()


def check_signature(headers: Sequence[str], body: bytes, secret: bytes, *, now_s: float) -> None:
    """Raises `Refused` unless the one header that there is was made with the secret, for this body, just now."""
    found = _HEADER.fullmatch(headers[0]) if len(headers) == 1 else None
    # What is malformed costs as much as what is wrong.
    shown = found or _HEADER.fullmatch(_NEVER_SIGNED)
    if shown is None:
        raise forbidden()
    is_signed = hmac.compare_digest(signature(body, secret, shown["ts"]), shown["hmac"])
    age_s = now_s - int(shown["ts"]) / 1000
    if not is_signed or not -AHEAD_S <= age_s <= OLDEST_S:
        raise forbidden()
