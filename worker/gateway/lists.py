"""Amplitude's list-based cohort destination: a list is made once, then users are added and removed.

A list is a cohort: its id is the cohort's, which stands in its name, so making it again makes the same. Kafka gets what
Amplitude's cohort webhook would have sent.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from consumers.amplitude_traits import INTEGRATION, cohort_in
from consumers.amplitude_webhook import AmplitudeWebhook
from consumers.document import decode_raw
from consumers.errors import InvalidRecord, InvalidValue, Reject
from consumers.feeds import Environments, Feed
from consumers.segment_key import segment_key
from consumers.values import MISSING, cohort_id, cohort_name
from stores.errors import StoreUnavailableError
from worker.gateway.answers import Refused, json_response, unauthorized
from worker.gateway.intake import Intake, invalid
from worker.gateway.routing import Endpoint, Handler
from worker.gateway.tokens import Token

NAME_KNOWN_FOR_S = 30.0
KNOWN_NAMES = 10_000


class ListNames(Protocol):
    """Where the names of lists are kept. Every method raises one of `stores.errors` and nothing else."""

    async def name_list(self, feed: str, cohort: str, name: str) -> None:
        """This list of the feed is called so from now on."""

    async def list_name(self, feed: str, cohort: str) -> str | None:
        """What it is called; None where it was never made."""


class Lists:
    """`POST /lists`, `/lists/{id}/add` and `/lists/{id}/remove`."""

    def __init__(  # noqa: PLR0913 - what it passes on
        self,
        intake: Intake,
        *,
        feed: Feed | None,
        feeds: Mapping[str, Feed],
        environments: Environments,
        names: ListNames,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._feed = feed
        self._feeds = feeds
        self._environments = environments
        self._names = names
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[str | None, float]] = OrderedDict()

    def endpoints(self) -> list[Endpoint]:
        """To make a list, and to change it."""
        return [
            Endpoint("lists", ("/lists",), ("POST",), self.create),
            Endpoint("lists-add", ("/lists/{id}/add",), ("POST",), self._changed(included=True)),
            Endpoint("lists-remove", ("/lists/{id}/remove",), ("POST",), self._changed(included=False)),
        ]

    async def create(self, request: Request) -> Response:
        """The id of the list with the cohort that is named."""
        token = self._intake.admit(request, unauthorized)
        feed = self._feed_of(token)
        with self._intake.in_flight.request() as account:
            name = _property(await self._intake.body(request, account), "name")
            if not isinstance(name, str) or not cohort_name(name):
                raise Refused(400, "invalid_request", "/name is missing or no text")
            found = cohort_in(name)
            # A name without an id is given one that is always the same.
            list_id = found.cohort_id if found else segment_key(INTEGRATION, name).removeprefix(f"{INTEGRATION}-")
            segment = segment_key(INTEGRATION, list_id)
            await self._intake.allow(token, self._environment(feed), [segment], unauthorized)
            await self._names.name_list(feed.name, list_id, cohort_name(found.name if found else name) or list_id)
        return json_response({"listId": list_id})

    def _changed(self, *, included: bool) -> Handler:
        async def post(request: Request) -> Response:
            token = self._intake.admit(request, unauthorized)
            feed = self._feed_of(token)
            with self._intake.in_flight.request() as account:
                users = _property(await self._intake.body(request, account), "userIds")
                list_id = _checked(request.path_params["id"])
                record = {
                    "cohort_id": list_id,
                    "cohort_name": await self._name(feed, list_id),
                    "in_cohort": included,
                    "users": [{"user_id": each} for each in users] if isinstance(users, list) else users,
                }
                if users is MISSING:
                    raise Refused(400, "invalid_request", "/userIds is missing")
                taken = await self._intake.take(
                    msgspec.json.encode(record), feed, AmplitudeWebhook.name, token, unauthorized
                )
            return json_response({"listId": list_id}, headers=taken.headers() if taken else None)

        return post

    async def _name(self, feed: Feed, list_id: str) -> str | None:
        """What the list is called. None where that can't be asked now: a name decides nothing."""
        asked = feed.name, list_id
        known = self._known.get(asked)
        if known is not None and self._clock() < known[1]:
            return known[0]
        try:
            name = await self._names.list_name(*asked)
        except StoreUnavailableError:
            return known[0] if known else None
        self._known[asked] = name, self._clock() + NAME_KNOWN_FOR_S
        self._known.move_to_end(asked)
        if len(self._known) > KNOWN_NAMES:
            self._known.popitem(last=False)
        return name

    def _feed_of(self, token: Token) -> Feed:
        feed = self._feeds.get(token.feed) if token.feed else self._feed
        if feed is None:
            raise unauthorized()
        return feed

    def _environment(self, feed: Feed) -> str:
        if feed.environment is None:
            raise Refused(400, "invalid_request", f"Lists name no environment, and neither does feed {feed.name}")
        return self._environments.find(feed.environment) or feed.environment


def _property(body: bytes, name: str) -> Any:
    """What stands there in the body."""
    try:
        document = decode_raw(body)
    except InvalidRecord as problem:
        raise invalid([Reject(None, problem.reason, problem.detail)]) from None
    if not isinstance(document, dict):
        raise Refused(400, "invalid_request", "The body is not a JSON object")
    return document.get(name, MISSING)


def _checked(list_id: str) -> str:
    try:
        return cohort_id(list_id, "the id of the list")
    except InvalidValue as problem:
        raise invalid([Reject(None, problem.reason, problem.detail)]) from None
