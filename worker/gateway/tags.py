"""The tags of segments, for policies that ask for them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from stores.errors import StoreUnavailableError
from stores.model import SegmentKey
from worker.gateway.answers import unavailable

KNOWN_FOR_S = 2.0
KNOWN_SEGMENTS = 10_000

Tags = frozenset[str]


class TagSource(Protocol):
    """Where tags are kept."""

    async def tags(self, segments: Iterable[SegmentKey]) -> dict[SegmentKey, list[str]]:
        """The tags of those of these segments that exist."""


class _Known(NamedTuple):
    tags: Tags
    at: float


class SegmentTags:
    """Asks for tags, and remembers them for a moment."""

    def __init__(self, source: TagSource, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._known: OrderedDict[SegmentKey, _Known] = OrderedDict()

    async def find(self, segments: Iterable[SegmentKey]) -> dict[SegmentKey, Tags]:
        """The tags of each; none of one that is not there yet. Raises `Refused` where they can't be asked."""
        now = self._clock()
        answer: dict[SegmentKey, Tags] = {}
        unknown = []
        for key in segments:
            known = self._known.get(key)
            if known is None or now - known.at > KNOWN_FOR_S:
                unknown.append(key)
            else:
                answer[key] = known.tags
        if unknown:
            try:
                found = await self._source.tags(unknown)
            except StoreUnavailableError:
                raise unavailable("It can't be said now what is allowed; send the same again later") from None
            for key in unknown:
                answer[key] = frozenset(found.get(key, ()))
                self._known[key] = _Known(answer[key], now)
                self._known.move_to_end(key)
        while len(self._known) > KNOWN_SEGMENTS:
            self._known.popitem(last=False)
        return answer
