"""What the gateway answers where it does not do what was asked: always JSON with a code and a sentence."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

JSON_TYPE = "application/json"
RETRY_AFTER_S = 1
BUSY_RETRY_AFTER_S = 5


class Refused(Exception):
    """A request is not done. The text is for whoever sent it, and quotes nothing of it."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.body: object = None
        """What some tools want to read beside code and message."""


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The value as JSON."""
    return Response(msgspec.json.encode(value), status, headers, JSON_TYPE)


def refusal(refused: Refused) -> Response:
    """As everybody is told it."""
    said: dict[str, object] = {"code": refused.code, "message": refused.message}
    if isinstance(refused.body, dict):
        said |= refused.body
    return json_response(said, refused.status, refused.headers)


def forbidden() -> Refused:
    """The one answer to every request that is not allowed, whatever the reason, as LaunchDarkly gives it."""
    return Refused(403, "forbidden", "Access to the requested resource was denied")


def unauthorized() -> Refused:
    """Likewise, where clients know Basic authentication."""
    message = "The credentials are not valid here"
    return Refused(401, "unauthorized", message, {"WWW-Authenticate": 'Basic realm="cohort-sync"'})


def unavailable(message: str) -> Refused:
    """Later: the same request will be taken."""
    return Refused(503, "service_unavailable", message, {"Retry-After": str(BUSY_RETRY_AFTER_S)})


def too_large(message: str) -> Refused:
    """It is over one of the limits."""
    return Refused(413, "request_too_large", message)
