"""Answers that integrations define themselves, by `jsonResponseBody` in their manifest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
from starlette.requests import Request
from starlette.responses import Response

from consumers.document import decode_raw
from consumers.errors import InvalidRecord
from consumers.formats import Format, Formats
from consumers.manifest import ManifestError
from worker.gateway.answers import Refused, json_response
from worker.gateway.intake import Intake, Taken
from worker.gateway.templates import Template, TemplateError

log = structlog.get_logger(__name__)

OK = 200


class CustomAnswers:
    """The templates of all integrations. Raises `ManifestError` for one that is not understood."""

    def __init__(self, formats: Formats, intake: Intake) -> None:
        self._intake = intake
        self._templates: dict[str, Template] = {}
        for name in formats.names():
            text = getattr(formats.find(name), "response_body", None)
            if text:
                try:
                    self._templates[name] = Template(text)
                except TemplateError as exc:
                    raise ManifestError(f"{name}: jsonResponseBody can't be rendered: {exc}") from None

    @asynccontextmanager
    async def answering(self, integration: Format, request: Request, body: bytes) -> AsyncIterator[Answer]:
        """What is taken in here is answered as the integration wants it, and so is what is refused."""
        template = self._templates.get(integration.name)
        answer = Answer(template, _Known(self._intake, request, body))
        try:
            yield answer
        except Refused as refused:
            if template is None or not template.handles_errors:
                raise
            raise answer.refused(refused) from None


class _Known:
    """What a template may ask for."""

    def __init__(self, intake: Intake, request: Request, body: bytes) -> None:
        self._intake = intake
        self._request = request
        self._body = body

    def values(self, taken: Taken | None, **more: object) -> Mapping[str, object]:
        environment = taken.environment if taken else ""
        segment = taken.segments[0] if taken else ""
        project = self._intake.project(environment) if environment else ""
        base = str(self._request.base_url).rstrip("/")
        url = f"{base}/api/v2/segments/{project}/{environment}/{segment}" if segment else ""
        return {
            "projectKey": project,
            "environmentKey": environment,
            "segmentKey": segment,
            "segmentUrl": url,
            "requestBody": self._document(),
            **more,
        }

    def _document(self) -> object:
        try:
            return decode_raw(self._body)
        except InvalidRecord:
            return {}


class Answer:
    """To one request."""

    def __init__(self, template: Template | None, known: _Known) -> None:
        self.taken: Taken | None = None
        self._template = template
        self._known = known

    def response(self, otherwise: Response) -> Response:
        """What the integration wants to read, or else this, with what is said of members that were not understood."""
        response = otherwise
        if self._template is not None:
            values = self._known.values(self.taken, statusCode=OK)
            response = json_response(self._rendered(values, {"status": "success"}), OK)
        if self.taken is not None:
            response.headers.update(self.taken.headers())
        return response

    def refused(self, refused: Refused) -> Refused:
        """The same refusal, told as the integration wants it."""
        values = self._known.values(self.taken, statusCode=refused.status, errorMessage=refused.message)
        refused.body = self._rendered(values, None)
        return refused

    def _rendered(self, values: Mapping[str, object], otherwise: object) -> object:
        try:
            return self._template.render(values) if self._template else otherwise
        except TemplateError as exc:
            log.warning("answer_not_rendered", why=str(exc))
            return otherwise
