"""Between Starlette and the routes: every request is timed, counted and answered, whatever happens in it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import NamedTuple

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stores.errors import StoreUnavailableError
from worker.gateway.answers import Refused, refusal, unavailable
from worker.gateway.metrics import GatewayMetrics

log = structlog.get_logger(__name__)

OTHER = "other"
"""The route of requests that none of ours takes."""
HEADER_BYTES = 32 << 10
_CLIENT_ERROR, _SERVER_ERROR = 400, 500

Handler = Callable[[Request], Awaitable[Response]]


class Endpoint(NamedTuple):
    """One route: what metrics and logs call it, where it is, and who answers."""

    name: str
    paths: Sequence[str]
    methods: Sequence[str]
    handler: Handler


def application(endpoints: Iterable[Endpoint], watch: Watch) -> Starlette:
    """All routes as one ASGI application."""
    routes = [
        Route(path, _Watched(watch, endpoint), methods=list(endpoint.methods))
        for endpoint in endpoints
        for path in endpoint.paths
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: watch.over_nothing})
    # Else it sends whoever writes one slash too many to where their Host header says, token, body and all.
    app.router.redirect_slashes = False
    return app


class Watch:
    """Every answer passes it: it has an id, and is timed and counted."""

    def __init__(self, metrics: GatewayMetrics, *, is_draining: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._is_draining = is_draining
        self._prefix = f"{secrets.token_hex(6)}-"
        self._numbers = count(1)

    async def answer(self, name: str, handler: Handler, request: Request) -> Response:
        """What the handler answers, but something in any case."""
        started_at = time.perf_counter()
        request_id = self._next_id()
        try:
            _check_headers(request)
            response = await handler(request)
        except Refused as refused:
            response = self._refuse(name, request_id, refused)
        except StoreUnavailableError:
            message = "The store does not answer now; send the same again later"
            response = self._refuse(name, request_id, unavailable(message))
        except Exception:  # a fault of ours is told to nobody but the log
            log.exception("request_failed", route=name, request_id=request_id)
            message = "An internal error; X-Request-Id names it in our logs"
            response = refusal(Refused(_SERVER_ERROR, "internal_error", message))
        response.raw_headers.append((b"x-request-id", request_id.encode()))
        if self._is_draining():
            response.headers["Connection"] = "close"
        self._metrics.answered(name, response.status_code, time.perf_counter() - started_at)
        return response

    async def over_nothing(self, _: Request, exc: Exception) -> Response:
        """No route of ours: a path that is none, or a method that its path does not have."""
        status = exc.status_code if isinstance(exc, HTTPException) else _SERVER_ERROR
        said = {404: ("not_found", "There is nothing here"), 405: ("method_not_allowed", "Not with this method")}
        code, message = said.get(status, ("invalid_request", "The request can't be taken"))
        headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
        self._metrics.answered(OTHER, status, 0.0)
        return refusal(Refused(status, code, message, headers | {"X-Request-Id": self._next_id()}))

    def malformed(self) -> str:
        """What came is no HTTP and is answered with 400 and the id that this returns."""
        self._metrics.answered(OTHER, _CLIENT_ERROR, 0.0)
        return self._next_id()

    def _next_id(self) -> str:
        return f"{self._prefix}{next(self._numbers):x}"

    def _refuse(self, name: str, request_id: str, refused: Refused) -> Response:
        told = log.warning if refused.status >= _SERVER_ERROR else log.debug
        told("request_refused", route=name, request_id=request_id, status=refused.status, code=refused.code)
        return refusal(refused)


class _Watched:
    """An endpoint as an ASGI application: Starlette would wrap a function in more than it needs."""

    def __init__(self, watch: Watch, endpoint: Endpoint) -> None:
        self._watch = watch
        self._name, self._handler = endpoint.name, endpoint.handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._watch.answer(self._name, self._handler, Request(scope, receive, send))
        await response(scope, receive, send)


def _check_headers(request: Request) -> None:
    """The server bounds only headers that come in parts."""
    scope = request.scope
    size = (
        len(scope["path"])
        + len(scope["query_string"])
        + sum(len(name) + len(value) for name, value in scope["headers"])
    )
    if size > HEADER_BYTES:
        raise Refused(431, "headers_too_large", f"Headers and path have more than {HEADER_BYTES} bytes")
