"""What records would do, as tables for people, in flat memory however many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from consumers.errors import SENTENCES, Ignored, Reason, Reject
from consumers.parsed import Change, Operation, Parsed
from consumers.segment_key import segment_key
from worker.commands.output import print_line, print_table, rfc3339

EACH_SHOWN = 20
"""Up to so many things are shown one by one."""
SHOWN_SEGMENTS = 100


class _Target(NamedTuple):
    environment: str | None
    segment: str
    context_kind: str


class Summary:
    """Each thing that would happen where they are few, else counts by segment and by reason, with an example."""

    def __init__(self) -> None:
        self._records = 0
        self._joins: Counter[_Target] = Counter()
        self._leaves: Counter[_Target] = Counter()
        self._names: dict[_Target, str | None] = {}
        self._operations: Counter[tuple[_Target, str]] = Counter()
        self._rejects: Counter[Reason] = Counter()
        self._first_rejects: dict[Reason, tuple[int, Reject]] = {}
        self._ignored: Counter[Ignored] = Counter()
        self._each: list[Sequence[object]] = []

    def take(self, number: int, parsed: Parsed) -> None:
        """Counts by whole groups; only the first members are looked at one by one."""
        self._records += 1
        if parsed.ignored is not None:
            self._ignored[parsed.ignored] += 1
            self._remember([(number, None, "be ignored", None, None, SENTENCES[parsed.ignored])])
        for group in parsed.changes:
            key = segment_key(group.cohort.integration, group.cohort.cohort_id)
            target = _Target(parsed.environment, key, parsed.context_kind)
            self._names[target] = group.cohort.name or self._names.get(target)
            (self._joins if group.included else self._leaves)[target] += len(group.context_keys)
        if (operation := parsed.operation) is not None:
            key = segment_key(operation.cohort.integration, operation.cohort.cohort_id)
            self._operations[_Target(parsed.environment, key, parsed.context_kind), operation.name] += 1
        for rejected in parsed.rejects:
            self._count(number, rejected)
        if len(self._each) <= EACH_SHOWN:
            self._remember(_rows(number, parsed))

    def reject(self, number: int, rejected: Reject) -> None:
        """Counts it, and remembers the first of its reason."""
        self._records += 1
        self._count(number, rejected)
        self._remember([_rejected_row(number, rejected)])

    def finish(self) -> bool:
        """Prints the tables."""
        joins, leaves = self._joins.total(), self._leaves.total()
        rejects, ignored = self._rejects.total(), self._ignored.total()
        print_line(
            f"records {self._records:,}: join {joins:,}, leave {leaves:,}, rejected {rejects:,}, ignored {ignored:,}"
        )
        if 0 < len(self._each) <= EACH_SHOWN:
            print_line("")
            print_table(_EACH, self._each, numbers=("record", "member"))
        else:
            self._print_counts()
        return bool(self._rejects)

    def _remember(self, rows: Iterable[Sequence[object]]) -> None:
        self._each += islice(rows, max(0, EACH_SHOWN + 1 - len(self._each)))

    def _count(self, number: int, rejected: Reject) -> None:
        self._rejects[rejected.reason] += 1
        self._first_rejects.setdefault(rejected.reason, (number, rejected))

    def _print_counts(self) -> None:
        if self._names:
            print_line("")
            rows = [self._segment_row(*item) for item in islice(self._names.items(), SHOWN_SEGMENTS)]
            print_table(("environment", "segment", "kind", "join", "leave", "cohort"), rows, numbers=("join", "leave"))
        if len(self._names) > SHOWN_SEGMENTS:
            print_line(f"... and {len(self._names) - SHOWN_SEGMENTS:,} more segments; --json shows all")
        if self._operations:
            print_line("\nWhole segments (a replace counts pages; it takes effect once all of its session are stored):")
            operations = [(*target, name, count) for (target, name), count in self._operations.most_common()]
            print_table(
                ("environment", "segment", "kind", "operation", "records"),
                operations[:SHOWN_SEGMENTS],
                numbers=("records",),
            )
        if self._rejects:
            print_line("\nRejected, for the dead letters:")
            rejects = [self._reject_row(reason, count) for reason, count in self._rejects.most_common()]
            print_table(
                ("reason", "count", "what it means", "first at", "what was wrong there"), rejects, numbers=("count",)
            )
        if self._ignored:
            print_line("\nIgnored: valid, but nothing for any segment:")
            ignored = [(reason, count, SENTENCES[reason]) for reason, count in self._ignored.most_common()]
            print_table(("reason", "records", "what it means"), ignored, numbers=("records",))

    def _segment_row(self, target: _Target, name: str | None) -> Sequence[object]:
        environment, segment, kind = target
        return environment, segment, kind, self._joins[target], self._leaves[target], name

    def _reject_row(self, reason: Reason, count: int) -> Sequence[object]:
        number, first = self._first_rejects[reason]
        where = f"record {number}" + ("" if first.place is None else f", member {first.place}")
        return reason, count, SENTENCES[reason], where, first.detail


_EACH = ("record", "member", "would", "segment", "context key", "why, or when")


def _rows(number: int, parsed: Parsed) -> Iterator[Sequence[object]]:
    for each in parsed.in_order():
        if isinstance(each, Change):
            when = rfc3339(each.event_time_us) or "at the record's time"
            yield number, each.place, "join" if each.included else "leave", each.segment_key, each.context_key, when
        elif isinstance(each, Operation):
            yield _operation_row(number, each)
        else:
            yield _rejected_row(number, each)


def _operation_row(number: int, operation: Operation) -> Sequence[object]:
    cohort, page = operation.cohort, operation.page
    if page is None:
        said = "nobody is in it any more"
    elif page.pages is None:
        said = "once it is stored, all are out who are not named in this session"
    else:
        said = f"page {page.number} of {page.pages}: once all are stored, all others are out"
    return number, None, operation.name, segment_key(cohort.integration, cohort.cohort_id), None, said


def _rejected_row(number: int, rejected: Reject) -> Sequence[object]:
    return number, rejected.place, "be rejected", None, None, f"{rejected.reason}: {rejected.detail}"
