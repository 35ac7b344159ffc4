"""The gateway's own description of itself, as OpenAPI: every route, what it takes, and every answer that it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from consumers.errors import Reason
from worker.gateway.answers import JSON_TYPE
from worker.gateway.routing import Endpoint
from worker.process_metrics import own_version

Document = dict[str, Any]

_ANSWERS = {
    400: "Nothing in it can be used; the message says why",
    401: "The credentials are not valid here",
    403: "Not allowed, whatever the reason",
    404: "There is no such thing",
    405: "Not with this method",
    408: "The body did not arrive in time",
    409: "A test of the patch does not hold",
    413: "Larger than a limit",
    415: "Neither JSON nor gzip",
    429: "Too many requests of this token",
    431: "Headers or path are too large",
    500: "An internal error",
    503: "Not now; send the same again later",
}
_ANY, _INTAKE = (405, 431, 500, 503), (400, 408, 413, 415, 429)
_TEXT: Document = {"type": "string"}
_TEXTS: Document = {"type": "array", "items": _TEXT}
_NUMBER: Document = {"type": "integer"}
_OBJECT: Document = {"type": "object"}
_STATUS: Document = {
    "type": "object",
    "properties": {"success": {"type": "boolean"}, "status": _TEXT},
    "description": "Or what the tool wants to read",
}
_PAGE: Document = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/components/schemas/Segment"}},
        "totalCount": _NUMBER,
        "_links": _OBJECT,
    },
    "required": ["items", "totalCount"],
}
_SEGMENT: Document = {"$ref": "#/components/schemas/Segment"}
_REJECTED: Document = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": _OBJECT},
        "totalCount": _NUMBER,
        "byReason": {"type": "object", "additionalProperties": _NUMBER},
    },
    "required": ["items", "totalCount", "byReason"],
}
_OPERATION: Document = {
    "type": "object",
    "properties": {"op": {"enum": ["add", "replace", "remove", "test"]}, "path": _TEXT, "value": {}},
    "required": ["op", "path"],
}
_EVENT: Document = {
    "type": "object",
    "properties": {
        "type": _TEXT,
        "userId": {"type": ["string", "integer"]},
        "traits": _OBJECT,
        "context": _OBJECT,
        "timestamp": {"type": "string", "format": "date-time"},
    },
}
_SEGMENT_SHAPE: Document = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("key", "name", "description", "unboundedContextKind", "_external", "_externalLink"), _TEXT),
        **dict.fromkeys(("creationDate", "lastModifiedDate", "version", "generation"), _NUMBER),
        "tags": _TEXTS,
        "unbounded": {"const": True},
        "_unboundedMetadata": _OBJECT,
    },
    "required": ["key", "name", "description", "tags", "version", "generation", "unbounded"],
}


def document(endpoints: Iterable[Endpoint]) -> Document:
    """All of it. A route that is not described is a KeyError: who adds one describes it."""
    paths: dict[str, Document] = {}
    for endpoint in endpoints:
        for path in endpoint.paths:
            for method in endpoint.methods:
                described = paths.setdefault(path.replace(":path}", "}"), {})
                described[method.lower()] = _operation(endpoint.name, method, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cohort-sync gateway",
            "version": own_version(),
            "description": "Takes what cohort tools send and publishes it to Kafka. 2xx: every in-sync replica has it.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The token is the user, or the password"},
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"code": _TEXT, "message": _TEXT},
                    "required": ["code", "message"],
                },
                "Segment": _SEGMENT_SHAPE,
            },
        },
    }


def endpoint_of(endpoints: Iterable[Endpoint]) -> Endpoint:
    """`GET /openapi.json`, for these and itself."""

    async def get(_: Request) -> Response:
        return Response(described, media_type=JSON_TYPE)

    own = Endpoint("openapi", ("/openapi.json",), ("GET",), get)
    described = msgspec.json.encode(document([*endpoints, own]))
    return own


def _operation(name: str, method: str, path: str) -> Document:
    summary, success, body, refusals = _ROUTES[name]
    operation: Document = {
        "operationId": f"{name}-{method.lower()}" + ("-singular" if "/segment-target/" in path else ""),
        "summary": summary,
        "parameters": [*_path_parameters(path), *_QUERIES.get(name, ())],
        "responses": {
            **{str(status): _answer(schema) for status, schema in success.items()},
            **{str(status): _refusal(status) for status in sorted({*refusals, *_ANY})},
        },
        "security": [] if name in _OPEN else [{"token": []}, {"bearer": []}, {"basic": []}],
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _path_parameters(path: str) -> list[Document]:
    names = [part[1:-1].removesuffix(":path") for part in path.split("/") if part.startswith("{")]
    text = {"type": "string", "minLength": 1}
    return [{"name": name, "in": "path", "required": True, "schema": text} for name in names]


def _answer(schema: Document | None) -> Document:
    rejected = {
        "X-Cohort-Sync-Rejected": {
            "description": "How many members were not understood; they go to the dead letters",
            "schema": _NUMBER,
        }
    }
    answer: Document = {"description": "Done", "headers": rejected}
    if schema is not None:
        answer["content"] = {"application/json": {"schema": schema}}
        if schema is _REJECTED:
            answer["content"]["text/csv"] = {"schema": _TEXT}
    return answer


def _refusal(status: int) -> Document:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": _ANSWERS[status], "content": {"application/json": {"schema": schema}}}


_Route = tuple[str, Mapping[int, Document | None], Document | None, tuple[int, ...]]

_TRACKED = (
    {200: {"type": "object", "properties": {"success": {"const": True}}, "required": ["success"]}},
    (*_INTAKE, 401),
)
_ROUTES: dict[str, _Route] = {
    "segment-targets": (
        "LaunchDarkly's inbound endpoint for synced segments",
        {204: None, 200: {}},
        _OBJECT,
        (*_INTAKE, 403, 404),
    ),
    **{
        f"v1-{kind}": (f"Segment's tracking API: {kind}", _TRACKED[0], _EVENT, _TRACKED[1])
        for kind in ("identify", "track", "page", "screen", "group", "alias")
    },
    "v1-batch": (
        "Segment's tracking API: several calls in one",
        _TRACKED[0],
        {"type": "object", "properties": {"batch": {"type": "array", "items": _EVENT}}, "required": ["batch"]},
        _TRACKED[1],
    ),
    "lists": (
        "Amplitude: makes a list for the cohort that its name names",
        {200: {"type": "object", "properties": {"listId": _TEXT}, "required": ["listId"]}},
        {"type": "object", "properties": {"name": _TEXT}, "required": ["name"]},
        (*_INTAKE, 401),
    ),
    **{
        f"lists-{kind}": (
            f"Amplitude: {kind} users",
            {200: {"type": "object", "properties": {"listId": _TEXT}}},
            {
                "type": "object",
                "properties": {"userIds": {"type": "array", "items": {"type": ["string", "integer"]}}},
                "required": ["userIds"],
            },
            (*_INTAKE, 401),
        )
        for kind in ("add", "remove")
    },
    "webhooks": ("A tool's own webhook, for one feed", {200: _STATUS, 204: None}, {}, (*_INTAKE, 403, 404)),
    "sdk-goals": ("Whether there is an environment with this client-side id", {200: {"type": "array"}}, None, (404,)),
    "versions": (
        "Which versions of the API there are",
        {200: {"type": "object", "properties": {"latestVersion": _NUMBER}}},
        None,
        (403, 413, 429),
    ),
    "segments": ("The segments of an environment", {200: _PAGE}, None, (400, 403, 404, 413, 429)),
    "segment": ("One segment", {200: _SEGMENT}, None, (403, 404, 413, 429)),
    "segment-rejected": (
        "Who is missing from a segment: members that were rejected in the last 30 days, at most 1,000",
        {200: _REJECTED},
        None,
        (400, 403, 404, 413, 429),
    ),
    "segment-edit": (
        "Edits name, description and tags by JSON patch, or by semantic patch with its content type",
        {200: _SEGMENT},
        {
            "anyOf": [
                {"type": "array", "items": _OPERATION},
                {
                    "type": "object",
                    "properties": {"patch": {"type": "array", "items": _OPERATION}, "comment": _TEXT},
                    "required": ["patch"],
                },
            ]
        },
        (*_INTAKE, 403, 404, 409),
    ),
    "segment-context": (
        "Whether a context is in a segment",
        {
            200: {
                "type": "object",
                "properties": {"userKey": _TEXT, "included": {"type": "boolean"}, "excluded": {"const": False}},
                "required": ["userKey", "included", "excluded"],
            }
        },
        None,
        (400, 403, 404, 413, 429),
    ),
    "openapi": ("This document", {200: _OBJECT}, None, ()),
}
_OPEN = ("sdk-goals", "openapi")
_QUERIES: dict[str, list[Document]] = {
    "segments": [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 100}},
        {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 1_000_000}},
        {"name": "sort", "in": "query", "schema": {"enum": ["creationDate", "-creationDate", "name", "-name"]}},
        {"name": "filter", "in": "query", "schema": _TEXT},
    ],
    "segment-rejected": [
        {"name": "format", "in": "query", "schema": {"enum": ["json", "csv"]}},
        {"name": "reason", "in": "query", "schema": {"enum": [str(each) for each in Reason]}},
    ],
    "segment-edit": [{"name": "dryRun", "in": "query", "schema": {"type": "boolean"}}],
}
