"""Up to when everything is in a target: what the SDKs are told, and why it stops. Pure: the clock is an argument.

An SDK takes a store for stale when this time is two minutes old, so it must never be later than the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from consumers.feeds import Feed
from stores.postgres.change_feed import FeedPosition

_NEVER = datetime.min.replace(tzinfo=UTC)


class Freshness(NamedTuple):
    """What may be said: everything up to then, or nothing yet; and why that stands still, if it does."""

    synchronized_on: datetime | None
    stopped: str | None


def stored_up_to(
    stored: Mapping[tuple[str, int], datetime | None], feeds: Sequence[Feed]
) -> tuple[datetime | None, str]:
    """Up to when everything of these feeds is stored, and what holds it back.

    A partition that nobody reads stays where it was, and so does a paused one: both hold back all that is said. A topic
    that no worker has told of is as one that was never read.
    """
    missing = sorted({topic for feed in feeds for topic in feed.topics} - {topic for topic, _ in stored})
    if missing:
        return None, f"no worker has read {missing[0]} yet"
    ours = {place: until for place, until in stored.items() if any(feed.carries(place[0]) for feed in feeds)}
    if not ours:
        return None, "no topic that matches a feed was read yet"
    topic, partition = min(ours, key=lambda place: ours[place] or _NEVER)
    return ours[topic, partition], f"{topic}:{partition} is not read to its end"


def freshness(applied: FeedPosition | None, *, feeds: Sequence[Feed], now: datetime, limit_s: float) -> Freshness:
    """What may be said now, when all of the feed is applied up to this position; None for a target that is not whole.

    It stands still, for a reason that `status` shows, as soon as it is older than `limit_s`.
    """
    if applied is None:
        return Freshness(None, "the target is being filled")
    until, reason = stored_up_to(applied.stored_up_to, feeds)
    if applied.unswept:
        reason = f"{len(applied.unswept)} cleared segments are not swept yet"
    if until is None:
        return Freshness(None, reason)
    until = min(until, now)  # a worker's clock may be ahead of ours
    if now - applied.at > timedelta(seconds=limit_s):
        return Freshness(until, "the projector is behind the change feed")
    if now - until > timedelta(seconds=limit_s):
        return Freshness(until, reason)
    return Freshness(until, None)
