"""The lists of members in a payload: which of them are there, and each member at its place, through all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from consumers.document import member_list
from consumers.errors import InvalidRecord, InvalidValue, Reason
from consumers.parsed import Collector
from consumers.pointer import Pointer
from consumers.values import MISSING


class MemberList(NamedTuple):
    """Where a list of members stands, and what being in it means; None where the member or the action says it."""

    pointer: Pointer
    included: bool | None = None


Found = tuple[MemberList, Sequence[object]]


def found_lists(
    lists: Sequence[MemberList], document: object, collector: Collector, *, may_be_null: bool = True
) -> list[Found]:
    """Those of the lists that are there. One that is no list costs only itself, where there is another."""
    there = [(each, each.pointer.find(document)) for each in lists]
    if all(value is MISSING for _, value in there):
        pointers = " and ".join(str(each.pointer) for each in lists)
        raise InvalidRecord(Reason.NO_MEMBERS_FIELD, f"{pointers} {'is' if len(lists) == 1 else 'are'} missing")
    found: list[Found] = []
    for each, value in there:
        if value is MISSING:
            continue
        try:
            found.append((each, member_list(value, str(each.pointer), may_be_null=may_be_null)))
        except InvalidRecord as problem:
            if len(lists) == 1:
                raise
            collector.reject(None, problem)
    return found


def collect_members(
    found: Iterable[Found], collector: Collector, collect: Callable[[int, bool | None, object], None]
) -> None:
    """Calls `collect` with each member, its place and what its list means; what that refuses is rejected alone."""
    first = 0
    for each, members in found:
        for index, member in enumerate(members):
            try:
                collect(first + index, each.included, member)
            except InvalidValue as problem:
                collector.reject(first + index, problem.within(f"{each.pointer}/{index}"))
        first += len(members)
