"""What Segment's LaunchDarkly destination asks before it syncs: is there such an environment, and is the token good."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from consumers.feeds import Environments
from worker.gateway.answers import json_response
from worker.gateway.intake import Intake
from worker.gateway.routing import Endpoint

API_VERSION = 20240415
"""The one that Segment's destination asks for."""


class ConnectionTest:
    """`HEAD /sdk/goals/{clientSideId}` and `GET /api/v2/versions`."""

    def __init__(self, intake: Intake, environments: Environments) -> None:
        self._intake = intake
        self._environments = environments

    def endpoints(self) -> list[Endpoint]:
        """Both of them."""
        return [
            Endpoint("sdk-goals", ("/sdk/goals/{client_side_id}",), ("GET", "HEAD"), self.goals),
            Endpoint("versions", ("/api/v2/versions",), ("GET",), self.versions),
        ]

    async def goals(self, request: Request) -> Response:
        """200 for an environment of ours. Needs no token: client-side ids are public."""
        if self._environments.find(request.path_params["client_side_id"]) is None:
            return json_response({"code": "not_found", "message": "There is no such environment"}, 404)
        return json_response([])

    async def versions(self, request: Request) -> Response:
        """Which versions of the API there are, for whoever has a token."""
        self._intake.admit(request)
        return json_response({"validVersions": [API_VERSION], "latestVersion": API_VERSION})
