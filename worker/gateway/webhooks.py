"""`POST /webhooks/{feed}`: what a tool sends by itself, with the answer that it wants to read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from consumers.document import decode_raw
from consumers.errors import InvalidRecord
from consumers.feeds import Feed
from consumers.formats import Format, Formats
from consumers.mparticle import MParticle
from consumers.twilio_segment import TwilioSegment
from consumers.values import properties_of
from worker.gateway.answers import Refused, forbidden, json_response
from worker.gateway.custom_answers import CustomAnswers
from worker.gateway.heap_signature import check_signature
from worker.gateway.intake import Intake
from worker.gateway.routing import Endpoint
from worker.gateway.tokens import Token

MIXPANEL = "mixpanel"
LONGEST_ECHO = 200


class Webhooks:
    """A feed's own address. Where the feed has a secret, a signature takes the place of a token."""

    def __init__(  # noqa: PLR0913 - what it passes on
        self,
        intake: Intake,
        *,
        feeds: Mapping[str, Feed],
        secrets: Mapping[str, SecretStr],
        formats: Formats,
        answers: CustomAnswers,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._intake = intake
        self._feeds = feeds
        self._secrets = secrets
        self._formats = formats
        self._answers = answers
        self._clock = clock

    def endpoints(self) -> list[Endpoint]:
        """One for all feeds."""
        return [Endpoint("webhooks", ("/webhooks/{feed}",), ("POST",), self.post)]

    async def post(self, request: Request) -> Response:
        """Answers once Kafka has it."""
        name = request.path_params["feed"]
        feed, secret = self._feeds.get(name), self._secrets.get(name)
        if feed is not None and secret is not None:
            with self._intake.of_strangers.request() as account:
                body = await self._intake.body(request, account)
                shown = request.headers.getlist("heap-hash")
                check_signature(shown, body, secret.get_secret_value().encode(), now_s=self._clock())
                with self._intake.in_flight.request():
                    return await self._take(request, body, feed, None)
        token = self._intake.admit(request)
        if feed is None:
            raise Refused(404, "not_found", "There is no feed of this name")
        if not token.may_use(feed):
            raise forbidden()
        with self._intake.in_flight.request() as account:
            return await self._take(request, await self._intake.body(request, account), feed, token)

    async def _take(self, request: Request, body: bytes, feed: Feed, token: Token | None) -> Response:
        found = self._formats.find(feed.format)
        if found is None:
            message = f"The records of feed {feed.name} are of any format: post to /api/v2/segment-targets instead"
            raise Refused(400, "invalid_request", message)
        async with self._answers.answering(found, request, body) as answer:
            try:
                answer.taken = await self._intake.take(body, feed, found.name, token)
            except Refused as refused:
                if found.name == MIXPANEL:
                    error = {"message": refused.message, "code": refused.status}
                    refused.body = {"action": _echo(body, "action"), "status": "failure", "error": error}
                raise
        return answer.response(_success(found, body))


def _success(found: Format, body: bytes) -> Response:
    if found.name == MIXPANEL:
        return json_response({"action": _echo(body, "action"), "status": "success"})
    if found.name == MParticle.name:
        kind = str(_echo(body, "type") or "")
        return json_response(
            {
                "type": f"{kind.removesuffix('_request')}_response",
                "id": _echo(body, "id"),
                "timestamp_ms": round(time.time() * 1000),
                "firehose_version": _echo(body, "firehose_version"),
                "suspend_subscription": False,
            }
        )
    return json_response({"success": True} if found.name == TwilioSegment.name else {"status": "success"})


def _echo(body: bytes, name: str) -> str | None:
    """A short text of the body, to be given back."""
    try:
        value = properties_of(decode_raw(body)).get(name)
    except InvalidRecord:
        return None
    return value[:LONGEST_ECHO] if isinstance(value, str) else None
