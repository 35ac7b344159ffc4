"""Bodies of requests: read within limits of size and time, and unpacked within the same."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from starlette.requests import Request

from consumers.deadlines import Deadlines
from worker.gateway.answers import Refused, too_large
from worker.gateway.limits import BodyAccount

READ_WITHIN_S = 15.0
_reading = Deadlines(READ_WITHIN_S)
_BY_NAME = "cohort_sync.headers"
_GZIP = 16 + zlib.MAX_WBITS
_JSON_TYPE = re.compile(r"\s*(application/(?:[a-z0-9.-]+\+)?json|text/plain)\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)


def check_size(request: Request, max_bytes: int) -> None:
    """Raises `Refused` for a body that says itself that it is too large, or is in no form that we read."""
    for length in header(request, b"content-length"):
        if length.isdecimal() and int(length) > max_bytes:
            raise too_large(f"The body is larger than {max_bytes} bytes")


def check_form(request: Request) -> None:
    """Raises `Refused` for a body that is no JSON, or is packed in another way than gzip."""
    if not all(map(_JSON_TYPE.fullmatch, header(request, b"content-type"))):
        raise Refused(415, "unsupported_media_type", "Send application/json")
    encodings = header(request, b"content-encoding")
    if len(encodings) > 1 or _encoding(request) not in ("", "identity", "gzip"):
        raise Refused(415, "unsupported_media_type", "Send the body as it is, or with Content-Encoding: gzip")


async def read_body(request: Request, max_bytes: int, account: BodyAccount) -> bytes:
    """All of the body, unpacked. Raises `Refused`."""
    try:
        with _reading.wait():
            body = await _all_parts(request, max_bytes, account)
    except TimeoutError:
        message = f"The body did not arrive within {READ_WITHIN_S:.0f} s"
        raise Refused(408, "request_timeout", message, {"Connection": "close"}) from None
    return _unpacked(body, max_bytes, account) if _encoding(request) == "gzip" else body


def header(request: Request, name: bytes) -> list[str]:
    """Every value of this header, which is written small. Starlette's own way to them costs more than all the rest."""
    found = request.scope.get(_BY_NAME)
    if found is None:
        found = request.scope[_BY_NAME] = _by_name(request)
    return [value.decode("latin-1") for value in found.get(name, ())]


def _by_name(request: Request) -> Mapping[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in request.scope["headers"]:
        found.setdefault(name, []).append(value)
    return found


async def _all_parts(request: Request, max_bytes: int, account: BodyAccount) -> bytes:
    parts, size = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "client_disconnected", "The body ended before its end")
        part = message.get("body", b"")
        account.add(len(part))
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise too_large(f"The body is larger than {max_bytes} bytes")
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _encoding(request: Request) -> str:
    return "".join(header(request, b"content-encoding")[:1]).strip().casefold()


def _unpacked(packed: bytes, max_bytes: int, account: BodyAccount) -> bytes:
    """Never more than the limit, whatever it would become."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacker.decompress(packed, max_bytes + 1)
    except zlib.error:
        raise Refused(400, "invalid_request", "The body is no gzip file") from None
    if len(unpacked) > max_bytes:
        raise too_large(f"The body is larger than {max_bytes} bytes once it is unpacked")
    if not unpacker.eof or unpacker.unused_data:
        # Of several files in one, millions of empty ones would fit.
        raise Refused(400, "invalid_request", "The body is not one complete gzip file")
    account.add(len(unpacked))
    return unpacked
