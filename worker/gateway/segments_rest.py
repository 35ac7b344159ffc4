"""Segments over REST, in LaunchDarkly's shapes: read them, ask who is in, edit name, description and tags."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from consumers.errors import Reason
from consumers.feeds import Environment, Environments
from stores.model import SegmentKey
from stores.postgres.segments import SegmentStore, SegmentView
from worker.gateway.answers import Refused, forbidden, json_response
from worker.gateway.intake import Intake
from worker.gateway.limits import InFlight
from worker.gateway.policies import DEFAULT_PROJECT, VIEW_PROJECT, Resource
from worker.gateway.rejected_report import as_csv, as_json
from worker.gateway.routing import Endpoint, Handler
from worker.gateway.segment_patches import parse_patch
from worker.gateway.segment_queries import SegmentQuery, parse_query
from worker.gateway.tokens import Token

ROOT = "/api/v2/segments/{project}/{environment}"
LONGEST_KEY = 2_048
AT_THE_STORE = 64


class SegmentsRest:
    """`/api/v2/segments/{project}/{environment}` and what is below it."""

    def __init__(self, intake: Intake, store: SegmentStore, environments: Iterable[Environment]) -> None:
        self._intake = intake
        self._store = store
        self._at_the_store = InFlight(requests=AT_THE_STORE)
        self._listed = {each.key: each for each in environments}
        self._environments = Environments(tuple(self._listed.values()))

    def endpoints(self) -> list[Endpoint]:
        """To read, and to edit."""
        one = f"{ROOT}/{{key}}"
        return [
            Endpoint("segments", (ROOT,), ("GET",), self._bounded(self.list_segments)),
            Endpoint("segment", (one,), ("GET",), self._bounded(self.get)),
            Endpoint("segment-edit", (one,), ("PATCH",), self._bounded(self.patch)),
            Endpoint("segment-rejected", (f"{one}/rejected",), ("GET",), self._bounded(self.rejected)),
            Endpoint("segment-context", (f"{one}/contexts/{{context:path}}",), ("GET",), self._bounded(self.context)),
        ]

    def _bounded(self, handler: Handler) -> Handler:
        """Only some at a time wait for the store, so that nobody waits behind an endless queue."""

        async def answer(request: Request) -> Response:
            with self._at_the_store.request():
                return await handler(request)

        return answer

    async def list_segments(self, request: Request) -> Response:
        """A page of them."""
        project, environment = self._viewed(request)
        asked = parse_query(request.query_params)
        found: list[SegmentView] = []
        total = 0
        if not asked.is_empty:
            found, total = await self._store.page(
                environment, asked.wanted, sort=asked.sort, limit=asked.limit, offset=asked.offset
            )
        items = [_shown(each, project) for each in found]
        return json_response({"items": items, "totalCount": total, "_links": _page_links(request, asked, total)})

    async def get(self, request: Request) -> Response:
        """One of them."""
        project, segment = await self._found(request)
        return json_response(_shown(segment, project))

    async def context(self, request: Request) -> Response:
        """Whether a context is in it."""
        _, segment = await self._found(request)
        context_key = request.path_params["context"]
        if not context_key or "\0" in context_key or len(context_key) > LONGEST_KEY:
            raise Refused(400, "invalid_request", "This is no context key")
        is_in = await self._store.is_member(segment, context_key)
        return json_response({"userKey": context_key, "included": is_in, "excluded": False})

    async def rejected(self, request: Request) -> Response:
        """Who is missing: the members that were rejected lately, as JSON, or with `format=csv` as CSV."""
        _, segment = await self._found(request)
        asked = request.query_params
        form, reason = asked.get("format", "json"), asked.get("reason")
        if form not in ("json", "csv") or (reason is not None and reason not in list(Reason)):
            raise Refused(400, "invalid_request", "format is json or csv, and reason one of those of dead letters")
        found = await self._store.rejects(segment, reason)
        if form == "csv":
            name = f'attachment; filename="{segment.key}-rejected.csv"'
            return Response(as_csv(found), media_type="text/csv", headers={"Content-Disposition": name})
        return json_response(as_json(found))

    async def patch(self, request: Request) -> Response:
        """Edits it, unless `dryRun=true` asks what would become of it."""
        token = self._admitted(request)
        project, environment = self._place(request, token)
        key = _segment(environment, request)
        with self._intake.in_flight.request() as account:
            body = await self._intake.body(request, account)
            patch = parse_patch(body, request.headers.get("content-type", ""))
        found = await self._store.find(key)
        resource = Resource(project, environment, key.key, frozenset(found.tags if found else ()))
        # A patch that only tests changes nothing, but it tells.
        may = token.policy.allows
        if not (may(resource, patch.actions) if patch.actions else may(Resource(project), (VIEW_PROJECT,))):
            raise forbidden()
        is_dry = request.query_params.get("dryRun", "").casefold() == "true"
        edited = await self._store.edit(key, patch.apply, is_dry=is_dry)
        if edited is None:
            raise _no_segment()
        return json_response(_shown(edited, project))

    async def _found(self, request: Request) -> tuple[str, SegmentView]:
        project, environment = self._viewed(request)
        segment = await self._store.find(_segment(environment, request))
        if segment is None:
            raise _no_segment()
        return project, segment

    def _viewed(self, request: Request) -> tuple[str, str]:
        """The project and environment, which the token may look at."""
        token = self._admitted(request)
        if not token.policy.allows(Resource(request.path_params["project"]), (VIEW_PROJECT,)):
            raise forbidden()
        return self._place(request, token)

    def _admitted(self, request: Request) -> Token:
        """The token, which is no write key: those are only to send with, and apps carry them for all to see."""
        token = self._intake.admit(request)
        if token.feed is not None:
            raise forbidden()
        return token

    def _place(self, request: Request, token: Token) -> tuple[str, str]:
        """Both by their keys. Which there are is told only to who may look."""
        project, named = request.path_params["project"], request.path_params["environment"]
        environment = self._environments.find(named)
        listed = self._listed.get(environment or "")
        if environment is None or "\0" in environment or project != ((listed and listed.project) or DEFAULT_PROJECT):
            may_look = token.policy.allows(Resource(project), (VIEW_PROJECT,))
            raise Refused(404, "not_found", "There is no such project and environment") if may_look else forbidden()
        return project, environment


def _segment(environment: str, request: Request) -> SegmentKey:
    key = request.path_params["key"]
    if "\0" in key:
        raise _no_segment()
    return SegmentKey(environment, key)


def _no_segment() -> Refused:
    return Refused(404, "not_found", "There is no segment of this key")


def _shown(segment: SegmentView, project: str) -> dict[str, object]:
    """LaunchDarkly's UserSegment. Members of such a segment are never listed in it."""
    place = f"/api/v2/segments/{quote(project, safe='')}/{quote(segment.environment, safe='')}"
    modified = max(filter(None, (segment.created_at, segment.last_change_at, segment.edited_at)))
    changed = segment.last_change_at or segment.created_at
    return {
        "key": segment.key,
        "name": segment.name,
        "description": segment.description,
        "tags": segment.tags,
        "creationDate": _ms(segment.created_at),
        "lastModifiedDate": _ms(modified),
        **{name: [] for name in ("included", "excluded", "includedContexts", "excludedContexts", "rules")},
        "version": segment.edits + 1,
        "deleted": False,
        "unbounded": True,
        "unboundedContextKind": segment.context_kind,
        "generation": segment.generation,
        "_unboundedMetadata": {
            "envId": segment.environment,
            "segmentId": f"{segment.key}.g{segment.generation}",
            "version": _ms(changed),
            "includedCount": segment.included_count,
            "excludedCount": 0,
            "lastModified": _ms(changed),
            "deleted": False,
        },
        "_external": segment.integration,
        **({"_externalLink": segment.cohort_url} if segment.cohort_url else {}),
        "_links": {
            "self": _link(f"{place}/{quote(segment.key, safe='')}"),
            "parent": _link(place),
        },
    }


def _page_links(request: Request, asked: SegmentQuery, total: int) -> dict[str, object]:
    links = {"self": _link(_page_url(request, asked.offset))}
    if asked.offset:
        links["first"] = _link(_page_url(request, 0))
        links["prev"] = _link(_page_url(request, max(0, asked.offset - asked.limit)))
    if asked.limit and asked.offset + asked.limit < total:
        links["next"] = _link(_page_url(request, asked.offset + asked.limit))
    return dict(links)


def _page_url(request: Request, offset: int) -> str:
    # Not from the whole URL: whoever sends a Host header that is none must not make that an error of ours.
    asked = dict(request.query_params) | {"offset": str(offset)}
    return f"{quote(request.scope['path'])}?{urlencode(asked)}"


def _link(href: str) -> dict[str, str]:
    return {"href": href, "type": "application/json"}


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
