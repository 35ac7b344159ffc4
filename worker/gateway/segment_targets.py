"""LaunchDarkly's inbound endpoint, so that a tool's LaunchDarkly destination works when only its host is changed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from consumers.feeds import Feed
from consumers.formats import Formats
from worker.gateway.answers import Refused, forbidden
from worker.gateway.custom_answers import CustomAnswers
from worker.gateway.intake import Intake
from worker.gateway.routing import Endpoint

NO_CONTENT = 204


class SegmentTargets:
    """`POST /api/v2/segment-targets/{integrationKey}`."""

    def __init__(self, intake: Intake, feed: Feed | None, formats: Formats, answers: CustomAnswers) -> None:
        self._intake = intake
        self._feed = feed
        self._formats = formats
        self._answers = answers

    def endpoints(self) -> list[Endpoint]:
        """Its paths: LaunchDarkly's servers have the plural, its test server the singular."""
        paths = ("/api/v2/segment-targets/{integration}", "/api/v2/segment-target/{integration}")
        return [Endpoint("segment-targets", paths, ("POST",), self.post)]

    async def post(self, request: Request) -> Response:
        """Answers once Kafka has it."""
        token = self._intake.admit(request)
        found = self._formats.find(request.path_params["integration"])
        if found is None:
            raise Refused(404, "not_found", "There is no integration of this name")
        feed = self._feed
        if feed is None or not token.may_use(feed):
            raise forbidden()
        with self._intake.in_flight.request() as account:
            body = await self._intake.body(request, account)
            async with self._answers.answering(found, request, body) as answer:
                answer.taken = await self._intake.take(body, feed, found.name, token)
            return answer.response(Response(status_code=NO_CONTENT))
