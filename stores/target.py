"""What a projector needs of a target: a Big Segment store that the LaunchDarkly SDKs read."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol


class TargetDamagedError(Exception):
    """The target held what is not ours under our names. That is gone now, so all must be applied again."""


class Change(NamedTuple):
    """A membership as it is: the context is in this generation of the segment, or not."""

    segment: str
    generation: int
    context_key: str
    included: bool


class Reference(NamedTuple):
    """What stands in a target: a context, as `context_reference` names it, in a generation of a segment."""

    segment: str
    generation: int
    context: str


class Target(Protocol):
    """A store in the format that the SDKs of one environment read. Repeating a call is harmless.

    Every method raises `StoreUnavailableError` where the target can't do it now, and nothing else but what it says.
    """

    async def apply(self, changes: Sequence[Change]) -> Sequence[Reference]:
        """Makes these memberships so, in their order. Raises `TargetDamagedError`.

        What the target can never hold is given back, and all else is so.
        """
        ...

    async def settle(self) -> None:
        """Returns when nothing can arrive any more of what was sent before and was not acknowledged."""
        ...

    async def marker(self) -> str | None:
        """What `mark` left; None where the target was never marked, or was emptied since."""
        ...

    async def mark(self, marker: str) -> None:
        """Leaves this text in the target, and takes away what it says of its freshness."""
        ...

    async def synchronize(self, on_ms: int) -> bool:
        """Tells the SDKs that all is there up to then (unix ms). False, and untold, if it was emptied meanwhile."""
        ...

    async def synchronized_on(self) -> int | None:
        """What `synchronize` told the SDKs last; None where they are told nothing."""
        ...


class AuditableTarget(Target, Protocol):
    """A target that can be compared with the truth."""

    def references(self) -> AsyncIterator[list[Reference]]:
        """Everything that stands in it, in pages. What changes meanwhile may be there, or not, or twice."""
        ...

    async def hold(self, references: Sequence[Reference]) -> list[bool]:
        """Whether each of these stands in it."""
        ...

    async def remove(self, references: Sequence[Reference]) -> None:
        """Takes these out."""
        ...

    async def forget(self, context: str) -> None:
        """Takes out all that stands there of a context, as `context_reference` names it, whoever put it there."""
        ...


def segment_reference(segment: str, generation: int) -> str:
    """How SDKs name a generation of a segment. Source: `_make_big_segment_ref` of the Python SDK."""
    return f"{segment}.g{generation}"


def reference_of(member: str, context: str) -> Reference | None:
    """The reverse, of what stands at a context; None for what no SDK would look for."""
    segment, mark, generation = member.rpartition(".g")
    if mark and generation.isdecimal() and generation.isascii():
        return Reference(segment, int(generation), context)
    return None


def context_reference(context_key: str) -> str:
    """How SDKs name a context: base64, standard and padded, of SHA-256 of the key alone, whatever its kind.

    Source: `_hash_for_user_key` of the Python SDK; for `abc` it is ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=.
    """
    return b64encode(sha256(context_key.encode()).digest()).decode()
