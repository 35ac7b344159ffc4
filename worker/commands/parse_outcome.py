"""Takes records through a format, and says as JSON lines what each would do. `parse_summary` says it to people."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import msgspec

from consumers.errors import Ignored, InvalidRecord, Reason, Reject
from consumers.feeds import Environments, Feed, Limits
from consumers.formats import Formats
from consumers.normalize import Normalizer
from consumers.parsed import Change, Operation, Parsed
from consumers.record import Record
from worker.commands.json_records import Line
from worker.commands.output import Advance

LINES_AT_ONCE = 2_000
KEPT_LINES = 10
_ADVANCE_BYTES = 1 << 20


class Outcome(Protocol):
    """Takes in what each record would do."""

    def take(self, number: int, parsed: Parsed) -> None:
        """The record in this line was understood, though perhaps not all of its members."""

    def reject(self, number: int, rejected: Reject) -> None:
        """The record in this line, or one of its members, can't be used."""

    def finish(self) -> bool:
        """Shows what was not shown yet. Whether anything was rejected."""


class Reader(NamedTuple):
    """Reads lines as the records of one feed."""

    normalizer: Normalizer
    feed: Feed
    limits: Limits

    def read(self, line: Line) -> Parsed:
        """What this record says. Raises InvalidRecord."""
        if line.size > self.limits.record_bytes:  # then its value was cut, and must not be taken for all of it
            detail = f"the value has {line.size} bytes, allowed {self.limits.record_bytes}"
            raise InvalidRecord(Reason.RECORD_TOO_LARGE, detail)
        return self.normalizer.parse(Record(self.feed.topics[0], 0, line.number, 0, None, line.value), self.feed)


class Rules(NamedTuple):
    """What a configuration says about all records."""

    limits: Limits = Limits()
    environments: Environments = Environments()
    skip_unknown_environment: bool = False
    manifests: tuple[Path, ...] = ()

    def reader(self, feed: Feed, formats: Formats) -> Reader:
        """What reads lines as records of this feed, by these rules."""
        normalizer = Normalizer(
            environments=self.environments,
            limits=self.limits,
            skip_unknown_environment=self.skip_unknown_environment,
            formats=formats,
        )
        return Reader(normalizer, feed, self.limits)


def parse_lines(lines: Iterable[Line], reader: Reader, outcome: Outcome, advance: Advance) -> list[Line]:
    """Tells the outcome of each record, in order, and how many bytes have passed.

    Returns some records where none of all meant anything: they may be another integration's.
    """
    passed = 0
    nothing: list[Line] = []
    is_any_understood = False
    for line in lines:
        try:
            parsed = reader.read(line)
            outcome.take(line.number, parsed)
            is_any_understood = is_any_understood or bool(parsed.changes) or parsed.operation is not None
        except InvalidRecord as exc:
            outcome.reject(line.number, Reject(None, exc.reason, exc.detail))
        if not is_any_understood and len(nothing) < KEPT_LINES:
            nothing.append(line)
        passed += line.size + 1
        if passed >= _ADVANCE_BYTES:
            advance(passed)
            passed = 0
    return [] if is_any_understood else nothing


class _ChangeLine(msgspec.Struct, gc=False):
    record: int
    member: int
    environment: str | None
    segment: str
    cohort_id: str
    cohort_name: str | None
    context_kind: str
    context_key: str
    included: bool
    event_time_us: int | None


class _RejectedLine(msgspec.Struct, gc=False):
    record: int
    member: int | None
    rejected: Reason
    detail: str


class _DrainLine(msgspec.Struct, gc=False):
    record: int
    member: None
    operation: str
    cohort_id: str


class _ReplaceLine(_DrainLine, gc=False):
    session: str | None
    page: int
    pages: int


class _IgnoredLine(msgspec.Struct, gc=False):
    record: int
    member: None
    ignored: Ignored


class JsonLines:
    """One object a line for each thing that would happen."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._encoder = msgspec.json.Encoder()
        self._waiting: list[msgspec.Struct] = []
        self._has_rejected = False

    def take(self, number: int, parsed: Parsed) -> None:
        """Its changes and rejects, by their places."""
        if parsed.ignored is not None:
            self._waiting.append(_IgnoredLine(number, None, parsed.ignored))
        for each in parsed.in_order():
            if isinstance(each, Change):
                self._waiting.append(_change_line(number, parsed, each))
            elif isinstance(each, Operation):
                self._waiting.append(_operation_line(number, each))
            else:
                self.reject(number, each)
        if len(self._waiting) >= LINES_AT_ONCE:
            self._write()

    def reject(self, number: int, rejected: Reject) -> None:
        """The reason and the detail."""
        self._has_rejected = True
        self._waiting.append(_RejectedLine(number, rejected.place, rejected.reason, rejected.detail))

    def finish(self) -> bool:
        """Writes the rest."""
        self._write()
        return self._has_rejected

    def _write(self) -> None:
        self._output.write(self._encoder.encode_lines(self._waiting))
        self._waiting.clear()


def _operation_line(number: int, operation: Operation) -> msgspec.Struct:
    cohort_id, page = operation.cohort.cohort_id, operation.page
    if page is None:
        return _DrainLine(number, None, operation.name, cohort_id)
    return _ReplaceLine(number, None, operation.name, cohort_id, page.session, page.number, page.pages or 1)


def _change_line(number: int, parsed: Parsed, change: Change) -> _ChangeLine:
    place, segment, cohort, context_key, included, event_time_us = change
    return _ChangeLine(
        number,
        place,
        parsed.environment,
        segment,
        cohort.cohort_id,
        cohort.name,
        parsed.context_kind,
        context_key,
        included,
        event_time_us,
    )
