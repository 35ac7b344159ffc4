"""What a format makes of one record, before anything is known about versions: changes, rejects, or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from consumers.cohorts import merged
from consumers.errors import Ignored, InvalidRecord, Reason, Reject
from consumers.segment_key import segment_key
from stores.model import DEFAULT_CONTEXT_KIND, Cohort, Page


class Changes(msgspec.Struct, frozen=True, gc=False):
    """These contexts join, or leave, one cohort at one time. Keys and places stand side by side."""

    cohort: Cohort
    included: bool
    context_keys: Sequence[str]
    places: Sequence[int]
    event_time_us: int | None = None
    """The source's own clock, or None where the format has none that can be trusted."""


class Operation(msgspec.Struct, frozen=True, gc=False):
    """What a record does to a cohort as a whole: a drain, or with `page` its part in replacing all members."""

    cohort: Cohort
    page: Page | None = None
    event_time_us: int | None = None

    @property
    def name(self) -> str:
        """What interface.md 4 calls it."""
        return "drain" if self.page is None else "replace"


class Change(NamedTuple):
    """One context of some `Changes`."""

    place: int
    segment_key: str
    cohort: Cohort
    context_key: str
    included: bool
    event_time_us: int | None


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """One record as its format reads it. Within it a context changes at most once for each cohort."""

    environment: str | None = None
    """Ours, by its key; of a record that is ignored since it is for another one, what the record calls that."""
    context_kind: str = DEFAULT_CONTEXT_KIND
    changes: Sequence[Changes] = ()
    rejects: list[Reject] = []
    members: int = 0
    conflicts: int = 0
    ignored: Ignored | None = None
    operation: Operation | None = None

    def in_order(self) -> Iterator[Operation | Change | Reject]:
        """Everything that would happen: what concerns the whole record, then the members in their order."""
        if self.operation is not None:
            yield self.operation
        each: list[Change | Reject] = [
            Change(
                place,
                segment_key(group.cohort.integration, group.cohort.cohort_id),
                group.cohort,
                key,
                group.included,
                group.event_time_us,
            )
            for group in self.changes
            for key, place in zip(group.context_keys, group.places, strict=True)
        ]
        yield from sorted([*each, *self.rejects], key=_place)


def changes_of(
    cohort: Cohort, context_keys: Sequence[str], included: Sequence[bool], event_time_us: int | None = None
) -> list[Changes]:
    """The changes of a record that lists every context once, from its columns."""
    if len(set(included)) == 1:
        return [Changes(cohort, included[0], context_keys, range(len(context_keys)), event_time_us)]
    return [
        Changes(
            cohort,
            wanted,
            [key for key, is_in in zip(context_keys, included, strict=True) if is_in is wanted],
            [place for place, is_in in enumerate(included) if is_in is wanted],
            event_time_us,
        )
        for wanted in (included[0], not included[0])
    ]


class Collector:
    """Gathers the members of one record one by one, where nothing is known about them beforehand.

    Of a context that is listed more than once for a cohort, the newest holds, and of equally old ones the last. Without
    a clock of its own a member counts as newest, since it will be given the time at which its record arrived.
    """

    def __init__(self) -> None:
        self.rejects: list[Reject] = []
        self._cohorts: dict[_CohortKey, Cohort] = {}
        self._latest: dict[tuple[_CohortKey, str], _Member] = {}
        self._conflicting: set[tuple[_CohortKey, str]] = set()

    def add(
        self, place: int, cohort: Cohort, context_key: str, *, included: bool, event_time_us: int | None = None
    ) -> None:
        """One member joins or leaves."""
        cohort_key = cohort.integration, cohort.cohort_id
        known = self._cohorts.get(cohort_key)
        self._cohorts[cohort_key] = cohort if known is None else merged(known, cohort)
        self._keep_latest((cohort_key, context_key), _Member(place, included, event_time_us))

    def reject(self, place: int | None, problem: InvalidRecord) -> None:
        """One member (or a part of the record that is no member) cannot be used; the others are not touched by it."""
        self.rejects.append(Reject(place, problem.reason, problem.detail, problem.cohorts))

    def parsed(
        self, *, environment: str | None, context_kind: str, members: int, operation: Operation | None = None
    ) -> Parsed:
        """What was gathered, as what this record with so many members means.

        A page with a member that was not understood replaces nobody: who that is, nobody knows, and putting out all the
        others who are not listed would take what was not understood for a removal.
        """
        if operation is not None and operation.page is not None and self.rejects:
            detail = "not all members of the page were understood"
            self.rejects.append(Reject(None, Reason.REPLACE_INCOMPLETE, detail, (operation.cohort,)))
            operation = None
        return Parsed(
            environment=environment,
            context_kind=context_kind,
            changes=self._changes(),
            rejects=self.rejects,
            members=members,
            conflicts=len(self._conflicting),
            operation=operation,
        )

    def _changes(self) -> list[Changes]:
        groups: dict[tuple[_CohortKey, bool, int | None], tuple[list[str], list[int]]] = {}
        for (cohort_key, context_key), member in sorted(self._latest.items(), key=lambda item: item[1].place):
            group = groups.setdefault((cohort_key, member.included, member.event_time_us), ([], []))
            group[0].append(context_key)
            group[1].append(member.place)
        return [
            Changes(self._cohorts[cohort_key], included, keys, places, event_time_us)
            for (cohort_key, included, event_time_us), (keys, places) in groups.items()
        ]

    def _keep_latest(self, key: tuple[_CohortKey, str], member: _Member) -> None:
        earlier = self._latest.get(key)
        if earlier is None:
            self._latest[key] = member
            return
        if earlier.included != member.included:
            self._conflicting.add(key)
        if not member.is_older_than(earlier):
            self._latest[key] = member


_CohortKey = tuple[str, str]


class _Member(NamedTuple):
    place: int
    included: bool
    event_time_us: int | None

    def is_older_than(self, other: _Member) -> bool:
        if self.event_time_us is None or other.event_time_us is None:
            return self.event_time_us is not None and other.event_time_us is None
        return self.event_time_us < other.event_time_us


def _place(item: Change | Reject) -> int:
    return -1 if item.place is None else item.place
