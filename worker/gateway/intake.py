"""What happens to a body: it is parsed as the worker will parse it, allowed, published, and acknowledged.

The order is from cheap to dear, and nothing is half accepted: either Kafka has all of the body, or the answer is an
error and it may be sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from starlette.requests import Request

from consumers.errors import SENTENCES, InvalidRecord, KafkaUnavailableError, Reason, Reject
from consumers.feeds import Feed
from consumers.inspection import Outgoing
from consumers.normalize import Normalizer
from consumers.parsed import Parsed
from consumers.producing import AcknowledgedProducer, TooLargeForTopicError
from consumers.record import Record
from consumers.segment_key import segment_key
from stores.model import SegmentKey
from worker.gateway.answers import Refused, forbidden, too_large, unavailable
from worker.gateway.bodies import check_form, check_size, header, read_body
from worker.gateway.body_members import check_members
from worker.gateway.limits import BodyAccount, InFlight, RateLimit
from worker.gateway.policies import CREATE_SEGMENT, DEFAULT_PROJECT, UPDATE_INCLUDED, Resource
from worker.gateway.tags import SegmentTags
from worker.gateway.tokens import KnownTokens, Token, credential_in

SYNC = (CREATE_SEGMENT, UPDATE_INCLUDED)
"""What a token needs for a segment that it sends members of."""
ANYWHERE = Resource(DEFAULT_PROJECT, "\0", "\0")
"""A segment that no policy can name: who may sync it may sync each."""
MOST_SEGMENTS = 1_000
"""That one body may be about: each is looked up in the token's policy."""
MOST_REASONS_TOLD = 5
STRANGERS_IN_FLIGHT, STRANGERS_BYTES = 4_000, 64 << 20
"""Many, as each may take its time: a few who hold their bodies back would else shut out all who have no header."""
REJECTED_HEADER = "X-Cohort-Sync-Rejected"


class Taken(NamedTuple):
    """A body that was understood, at least in part."""

    parsed: Parsed
    environment: str
    segments: tuple[str, ...]

    def headers(self) -> dict[str, str]:
        """What the answer says about members that were not understood."""
        rejected = len(self.parsed.rejects)
        return {REJECTED_HEADER: str(rejected)} if rejected else {}


class Intake:
    """Takes bodies in. All its methods raise `Refused`, with the answer to be given."""

    def __init__(  # noqa: PLR0913 - all that a request passes on its way
        self,
        *,
        tokens: KnownTokens,
        rates: RateLimit,
        in_flight: InFlight,
        normalizer: Normalizer,
        tags: SegmentTags,
        producer: AcknowledgedProducer,
        projects: Mapping[str, str | None],
        max_body_bytes: int,
        max_members: int,
    ) -> None:
        self._tokens = tokens
        self._rates = rates
        self.in_flight = in_flight
        self.of_strangers = InFlight(requests=STRANGERS_IN_FLIGHT, body_bytes=STRANGERS_BYTES)
        """For bodies that are read before it is known who sends them, so that they can't crowd out the others."""
        self._normalizer = normalizer
        self._tags = tags
        self._producer = producer
        self._projects = projects
        self._max_body_bytes = max_body_bytes
        self._max_members = max_members

    def admit(self, request: Request, denied: Callable[[], Refused] = forbidden) -> Token:
        """The token that the request shows in its headers."""
        check_size(request, self._max_body_bytes)
        shown = header(request, b"authorization")
        return self.admit_by(credential_in(shown[0]) if len(shown) == 1 else None, denied)

    def admit_by(self, credential: str | None, denied: Callable[[], Refused] = forbidden) -> Token:
        """The token that this is."""
        token = self._tokens.find(credential)
        if not (self._tokens.are_all() if token is None else self._tokens.are_current()):
            raise unavailable("It can't be said now who is allowed in; send the same again later")
        if token is None:
            raise denied()
        self._rates.take(token.id)
        return token

    async def body(self, request: Request, account: BodyAccount, *, at_most_bytes: int | None = None) -> bytes:
        """What was sent, by somebody who was admitted or is not known yet."""
        check_form(request)
        limit = min(self._max_body_bytes, at_most_bytes or self._max_body_bytes)
        check_size(request, limit)
        body = await read_body(request, limit, account)
        check_members(body, self._max_members)
        return body

    async def take(
        self,
        body: bytes,
        feed: Feed,
        integration: str,
        token: Token | None,
        denied: Callable[[], Refused] = forbidden,
    ) -> Taken | None:
        """Reads the body, asks what the token may do (where a feed needs none, None) and publishes it.

        None where it says nothing about any membership, so that there is nothing to publish.
        """
        taken = self.read(body, feed, integration, token, denied)
        if taken is not None:
            if token is not None:
                await self.allow(token, taken.environment, taken.segments, denied)
            await self.publish(body, feed, integration, taken)
        return taken

    def read(
        self,
        body: bytes,
        feed: Feed,
        integration: str,
        token: Token | None = None,
        denied: Callable[[], Refused] = forbidden,
    ) -> Taken | None:
        """What the body says as a record of this feed; None where it says nothing about any membership.

        That there is no such environment is told only to a token that may sync everywhere.
        """
        headers = (("integration", integration.encode()),)
        try:
            parsed = self._normalizer.parse(Record(feed.topics[0], 0, 0, 0, None, body, headers), feed)
        except InvalidRecord as problem:
            if problem.reason is Reason.ENVIRONMENT_UNKNOWN and token and not token.policy.allows(ANYWHERE, SYNC):
                raise denied() from None
            raise invalid([Reject(None, problem.reason, problem.detail)]) from None
        if parsed.ignored is not None:
            return None
        if not parsed.changes and parsed.operation is None:
            raise invalid(parsed.rejects)
        if parsed.environment is None:
            detail = "neither the payload nor the feed names one"
            raise invalid([Reject(None, Reason.ENVIRONMENT_MISSING, detail)])
        about = [*((parsed.operation,) if parsed.operation else ()), *parsed.changes]
        cohorts = dict.fromkeys((each.cohort.integration, each.cohort.cohort_id) for each in about)
        if len(cohorts) > MOST_SEGMENTS:
            raise too_large(f"The body is about more than {MOST_SEGMENTS} segments")
        return Taken(parsed, parsed.environment, tuple(segment_key(*cohort) for cohort in cohorts))

    async def allow(
        self, token: Token, environment: str, segments: Sequence[str], denied: Callable[[], Refused] = forbidden
    ) -> None:
        """Returns where the token may sync all of these segments."""
        project, tags = self.project(environment), {}
        if token.policy.needs_tags:
            tags = await self._tags.find(SegmentKey(environment, key) for key in segments)
        for key in segments:
            found = tags.get(SegmentKey(environment, key), frozenset())
            if not token.policy.allows(Resource(project, environment, key, found), SYNC):
                raise denied()

    def project(self, environment: str) -> str:
        """The project of an environment, as policies name it."""
        return self._projects.get(environment) or DEFAULT_PROJECT

    async def publish(self, body: bytes, feed: Feed, integration: str, taken: Taken) -> None:
        """Returns when every in-sync replica has the body as it came."""
        record = Outgoing(
            feed.topics[0],
            f"{taken.environment}/{taken.segments[0]}".encode(),
            body,
            (("integration", integration.encode()), ("environment", taken.environment.encode())),
        )
        try:
            await self._producer.send(record)
        except KafkaUnavailableError:
            raise unavailable("Kafka has not acknowledged it in time; send the same again later") from None
        except TooLargeForTopicError:
            raise too_large("The body is larger than its topic takes") from None


def invalid(rejects: Iterable[Reject]) -> Refused:
    """Nothing of it can be used, for these reasons."""
    reasons: dict[Reason, list[Reject]] = {}
    for each in rejects:
        reasons.setdefault(each.reason, []).append(each)
    told = [_told(reason, found) for reason, found in list(reasons.items())[:MOST_REASONS_TOLD]]
    return Refused(400, "invalid_request", " ".join(told) or "Nothing in it can be used")


def _told(reason: Reason, found: list[Reject]) -> str:
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{SENTENCES[reason]} ({reason}: {found[0].detail}{more})"
