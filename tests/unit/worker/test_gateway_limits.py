"""What one client of the gateway may cost."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from stores.errors import StoreUnavailableError
from stores.model import SegmentKey
from worker.gateway.answers import Refused
from worker.gateway.body_members import check_members
from worker.gateway.limits import BURST_S, KNOWN_TOKENS, InFlight, RateLimit
from worker.gateway.tags import KNOWN_FOR_S, KNOWN_SEGMENTS, SegmentTags


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def taken(rates: RateLimit, token: str, times: int) -> int:
    """How many of so many requests are let through."""
    count = 0
    for _ in range(times):
        try:
            rates.take(token)
        except Refused:
            continue
        count += 1
    return count


def test_a_token_has_a_burst_and_then_its_rate_and_others_have_their_own() -> None:
    clock = Clock()
    rates = RateLimit(10, clock=clock)

    assert taken(rates, "a", 100) == 10 * BURST_S
    assert taken(rates, "b", 5) == 5
    clock.now += 1
    assert taken(rates, "a", 100) == 10
    clock.now += 100
    assert taken(rates, "a", 100) == 10 * BURST_S


def test_the_answer_says_when_to_come_back_in_seconds_and_in_milliseconds_since_1970() -> None:
    rates = RateLimit(0.1, clock=Clock(), wall_clock=lambda: 1_700_000_000.0)

    with pytest.raises(Refused) as refused:
        rates.take("a")

    assert refused.value.status == 429
    assert refused.value.headers == {"Retry-After": "8", "X-Ratelimit-Reset": "1700000008000"}


def test_what_is_known_of_tokens_is_bounded() -> None:
    rates = RateLimit(10, clock=Clock())
    for number in range(KNOWN_TOKENS + 10):
        rates.take(str(number))

    assert len(rates._full_at) == KNOWN_TOKENS


def test_requests_and_bytes_in_flight_are_bounded_and_given_back_whatever_happens() -> None:
    in_flight = InFlight(requests=2, body_bytes=100)

    with in_flight.request() as first, in_flight.request() as second:
        with pytest.raises(Refused) as refused, in_flight.request():
            pass
        assert refused.value.status == 503
        assert "Retry-After" in refused.value.headers
        first.add(60)
        with pytest.raises(Refused):
            second.add(60)
        second.add(40)
    with pytest.raises(Refused):
        overdrawn(in_flight)

    assert (in_flight.requests, in_flight.body_bytes) == (0, 0)


def overdrawn(in_flight: InFlight) -> None:
    with in_flight.request() as account:
        account.add(100)
        account.add(1)


@pytest.mark.parametrize(
    ("body", "members"),
    [
        (b'{"batch": [1, 2, 3]}', 3),
        (b'{"batch": [{"a": 1, "b": 2, "c": 3}], "of": {"no": 1, "list": 2}}', 1),
        (b'{"add": [1, 2], "remove": [3]}', 3),
        (b"[[], [], []]", 3),
        (b'{"batch": [1, %s]}' % (b"9" * 5_000), 2),
    ],
)
def test_what_all_lists_of_a_body_hold_is_bounded(body: bytes, members: int) -> None:
    check_members(body, members)

    with pytest.raises(Refused) as refused:
        check_members(body, members - 1)
    assert refused.value.status == 413


@pytest.mark.parametrize("body", [b"", b"[1,2,3", b"\xff,,,", b"[1," * 100_000])
def test_what_is_no_json_is_left_to_the_parser(body: bytes) -> None:
    check_members(body, 1)


class Tags:
    """A source of tags that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False

    async def tags(self, segments: Iterable[SegmentKey]) -> dict[SegmentKey, list[str]]:
        if self.is_away:
            raise StoreUnavailableError("PostgreSQL", "away")
        self.asked += 1
        return {key: ["eu"] for key in segments if key.key == "known"}


async def test_tags_that_others_crowd_out_meanwhile_are_still_told() -> None:
    known, other = SegmentKey("e", "known"), SegmentKey("e", "other")

    class Crowd(Tags):
        async def tags(self, segments: Iterable[SegmentKey]) -> dict[SegmentKey, list[str]]:
            asked = list(segments)
            if asked == [other]:
                await tags.find(SegmentKey("e", str(number)) for number in range(KNOWN_SEGMENTS))
            return await super().tags(asked)

    tags = SegmentTags(Crowd(), clock=Clock())
    await tags.find([known])

    assert await tags.find([known, other]) == {known: frozenset(("eu",)), other: frozenset()}


async def test_tags_are_remembered_for_a_moment_and_what_cannot_be_asked_is_no_leave() -> None:
    clock, source = Clock(), Tags()
    tags = SegmentTags(source, clock=clock)
    known, unknown = SegmentKey("e", "known"), SegmentKey("e", "unknown")

    for _ in range(3):
        assert await tags.find([known, unknown]) == {known: frozenset(("eu",)), unknown: frozenset()}
    assert source.asked == 1
    clock.now += KNOWN_FOR_S + 0.1
    source.is_away = True
    with pytest.raises(Refused) as refused:
        await tags.find([known])
    assert refused.value.status == 503
