"""Segment's HTTP tracking API: the official libraries work when they are given this host.

The write key is a token that is tied to a feed. Libraries show it by Basic authentication, newer ones within the body;
from there it is taken out before the body is published.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from consumers.feeds import Feed
from consumers.twilio_segment import TwilioSegment
from worker.gateway.answers import JSON_TYPE, unauthorized
from worker.gateway.bodies import header
from worker.gateway.intake import Intake
from worker.gateway.limits import BodyAccount
from worker.gateway.routing import Endpoint, Handler
from worker.gateway.tokens import Token

TAKEN = ("identify", "track", "batch")
IGNORED = ("page", "screen", "group", "alias")
LARGEST_WITH_KEY_INSIDE = 1 << 20
"""Of a body that has to be read before it is known who sends it."""
"""Segment takes half of it."""
_BOM = b"\xef\xbb\xbf"
_SUCCESS = b'{"success":true}'
_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Tracking:
    """`POST /v1/identify` and its like."""

    def __init__(self, intake: Intake, feeds: Mapping[str, Feed]) -> None:
        self._intake = intake
        self._feeds = feeds

    def endpoints(self) -> list[Endpoint]:
        """One for each kind of call."""
        return [Endpoint(f"v1-{kind}", (f"/v1/{kind}",), ("POST",), self._posted(kind)) for kind in (*TAKEN, *IGNORED)]

    def _posted(self, kind: str) -> Handler:
        async def post(request: Request) -> Response:
            if not header(request, b"authorization"):
                with self._intake.of_strangers.request() as account:
                    body = await self._intake.body(request, account, at_most_bytes=LARGEST_WITH_KEY_INSIDE)
                    key = _write_key(body)
                    token = self._intake.admit_by(key, unauthorized)
                    with self._intake.in_flight.request():
                        return await self._take(kind, body, key, token)
            token = self._intake.admit(request, unauthorized)
            with self._intake.in_flight.request() as account:
                return await self._take(kind, *await self._read(request, account), token)

        return post

    async def _read(self, request: Request, account: BodyAccount) -> tuple[bytes, str | None]:
        body = await self._intake.body(request, account)
        return body, _write_key(body) if b"writeKey" in body else None

    async def _take(self, kind: str, body: bytes, key_inside: str | None, token: Token) -> Response:
        feed = self._feeds.get(token.feed or "")
        if feed is None:
            raise unauthorized()
        taken = None
        if kind in TAKEN:
            event = _event(body, kind, has_key=key_inside is not None)
            taken = await self._intake.take(event, feed, TwilioSegment.name, token, unauthorized)
        return Response(_SUCCESS, headers=taken.headers() if taken else None, media_type=JSON_TYPE)


def _write_key(body: bytes) -> str | None:
    """The write key in the body, if it has one."""
    try:
        return msgspec.json.decode(_DECODER.decode(body.removeprefix(_BOM)).get("writeKey", b"null"), type=str | None)
    except (msgspec.DecodeError, RecursionError):
        return None


def _event(body: bytes, kind: str, *, has_key: bool) -> bytes:
    """The body as Segment itself would pass it on: with its type, which libraries leave to the path, without the key.

    Where nothing is to be done it stays as it came, byte for byte; else each property does.
    """
    if kind == "batch" and not has_key:
        return body
    try:
        properties = _DECODER.decode(body.removeprefix(_BOM))
    except (msgspec.DecodeError, RecursionError):
        return body  # the parser says what is wrong with it
    is_complete = kind == "batch" or "type" in properties or "batch" in properties
    if is_complete and not has_key:
        return body
    properties.pop("writeKey", None)
    if not is_complete:
        properties["type"] = msgspec.Raw(msgspec.json.encode(kind))
    return msgspec.json.encode(properties)
