"""The audit: a target against the truth, by bounded pages and while changes go on.

What differs at first sight may only be on its way. So it is looked at again once the projector has applied all that was
committed by then, and counts only if it still differs. Only the projector writes memberships: a repair puts them into
the change feed once more. What no membership of ours could ever put right is taken out of the target at once.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from stores.parts import in_parts
from stores.postgres.change_feed import ChangeFeed, Expected, Place
from stores.target import AuditableTarget, Reference, context_reference

BATCH = 5_000
_HASH_BYTES = 16


class Fault(StrEnum):
    """How a target differs from the truth."""

    MISSING = "missing"
    EXTRA = "extra"


class Difference(NamedTuple):
    """Somebody who is in and does not stand in the target, or the other way round."""

    fault: Fault
    reference: Reference
    place: Place | None
    """Where it stands in PostgreSQL; None for what can't be anybody of ours."""
    is_ours: bool
    """Whether the membership, as it is, puts this right when it is applied again."""


class Audit:
    """Compares one target with its environment. `settle` returns once all that is committed then is applied."""

    def __init__(
        self, feed: ChangeFeed, target: AuditableTarget, environment: str, settle: Callable[[], Awaitable[None]]
    ) -> None:
        self._feed = feed
        self._target = target
        self._environment = environment
        self._settle = settle

    async def differences(self) -> AsyncIterator[list[Difference]]:
        """What differs and stays so, in pages of any size; an empty one says only that it goes on."""
        async for page in self.extra():
            yield page
        async for page in self.missing():
            yield page

    async def extra(self) -> AsyncIterator[list[Difference]]:
        """Of these, what stands in the target and should not."""
        async for references in self._target.references():
            for part in in_parts(references, BATCH):
                yield await self._confirmed(await self._extra(part))

    async def missing(self) -> AsyncIterator[list[Difference]]:
        """And what should stand there and does not."""
        async for members in self._feed.members(self._environment):
            wanted = [
                (Reference(change.segment, change.generation, context_reference(change.context_key)), place)
                for place, change in members
            ]
            yield await self._confirmed(await self._missing(wanted))

    async def repair(self, differences: Sequence[Difference]) -> None:
        """Returns when the projector has what it needs to put them right, and what nobody of ours is, is gone."""
        ours = [each.place for each in differences if each.place is not None and each.is_ours]
        foreign = [each.reference for each in differences if not each.is_ours]
        await self._target.remove(foreign)
        if ours:
            await self._feed.touch(self._environment, ours)

    async def _confirmed(self, suspected: list[Difference]) -> list[Difference]:
        if not suspected:
            return []
        await self._settle()
        extra = [each.reference for each in suspected if each.fault is Fault.EXTRA]
        missing = [(each.reference, each.place) for each in suspected if each.fault is Fault.MISSING and each.place]
        held = await self._target.hold(extra)
        still_there = [reference for reference, is_held in zip(extra, held, strict=True) if is_held]
        return [*await self._extra(still_there), *await self._missing(missing)]

    async def _extra(self, references: Sequence[Reference]) -> list[Difference]:
        places = [_place(reference) for reference in references]
        expected = await self._feed.expected(self._environment, [place for place in places if place is not None])
        return [
            Difference(Fault.EXTRA, reference, place, is_ours=_is_ours(reference, place, expected))
            for reference, place in zip(references, places, strict=True)
            if not _is_expected(reference, place, expected)
        ]

    async def _missing(self, wanted: Sequence[tuple[Reference, Place]]) -> list[Difference]:
        held = await self._target.hold([reference for reference, _ in wanted])
        absent = [each for each, is_held in zip(wanted, held, strict=True) if not is_held]
        if not absent:
            return []
        expected = await self._feed.expected(self._environment, [place for _, place in absent])
        return [
            Difference(Fault.MISSING, reference, place, is_ours=True)
            for reference, place in absent
            if _is_expected(reference, place, expected)
        ]


def _is_expected(reference: Reference, place: Place | None, expected: Mapping[Place, Expected]) -> bool:
    found = expected.get(place) if place is not None else None
    return found is not None and found.included and reference.generation in found.generations


def _is_ours(reference: Reference, place: Place | None, expected: Mapping[Place, Expected]) -> bool:
    """A leaver of a generation that is kept: applied again, it goes. Another generation never would."""
    found = expected.get(place) if place is not None else None
    return found is not None and found.is_known and reference.generation in found.generations


def _place(reference: Reference) -> Place | None:
    try:
        digest = b64decode(reference.context, validate=True)
    except (NotBase64, ValueError):
        return None
    return Place(reference.segment, UUID(bytes=digest[:_HASH_BYTES])) if len(digest) == 2 * _HASH_BYTES else None
