"""Records in, deltas out: the one place where a record of any format becomes groups of deltas, rejects, or nothing."""

from __future__ import annotations

from typing import Never

import msgspec

from consumers.document import checked
from consumers.errors import Ignored, IgnoredRecord, InvalidRecord, InvalidValue, Reason, Reject
from consumers.feeds import Environments, Feed, Limits
from consumers.formats import HEADER, Formats
from consumers.parsed import Parsed
from consumers.record import Record
from consumers.rules import AskedForEnvironment, OwnEnvironmentNamed, Rules
from consumers.segment_key import segment_of
from consumers.values import MISSING
from stores.model import Clearing, DeltaGroup, Version

_NOBODYS = Feed(name="", format=HEADER)


class Normalized(msgspec.Struct, frozen=True):
    """What one record means."""

    groups: list[DeltaGroup]
    rejects: list[Reject]
    members: int
    """How many members the record listed, rejected ones too; 1 for a record that is one event."""
    ignored: Ignored | None = None
    conflicts: int = 0
    """Members that were listed more than once with different membership; the last one won."""
    clearing: Clearing | None = None
    """What the record does to a whole segment, once its deltas are stored."""
    environment: str | None = None
    """Where it is another cell's, what the record calls it."""
    position: int = 0
    """Where and when the record arrived, packed as in its versions."""
    future_event_time: bool = False
    """The source's clock was later than allowed and the record's timestamp was taken instead."""


class Normalizer:
    """Reads records of all formats by the same rules."""

    def __init__(
        self,
        *,
        environments: Environments,
        limits: Limits,
        skip_unknown_environment: bool = False,
        formats: Formats | None = None,
    ) -> None:
        self._rules = Rules(limits=limits, environments=environments, skip_unknown_environment=skip_unknown_environment)
        self._asking = AskedForEnvironment(
            limits=limits, environments=environments, skip_unknown_environment=skip_unknown_environment
        )
        self._formats = formats or Formats()

    def normalize(self, record: Record, feed: Feed, *, arrived_ms: int, position: int) -> Normalized:
        """The deltas of this record, versioned by where and when it first arrived. Raises InvalidRecord."""
        try:
            parsed = self.parse(record, feed)
        except InvalidValue as problem:
            if not problem.cohorts:
                raise
            return self._of_nobody(problem, _with_headers(feed, record), position)
        if parsed.ignored is not None:
            return Normalized([], [], parsed.members, parsed.ignored, environment=parsed.environment)
        if parsed.environment is None:
            raise InvalidRecord(Reason.ENVIRONMENT_MISSING, "neither the payload, a header nor the feed names one")
        return self._versioned(parsed, parsed.environment, arrived_ms * 1000, position)

    def parse(self, record: Record, feed: Feed) -> Parsed:
        """What this record says, before any version; its environment is None where nobody names one."""
        if record.headers:
            feed = _with_headers(feed, record)
        try:
            return self._parse(record, feed)
        except IgnoredRecord as skipped:
            return Parsed(ignored=skipped.reason, environment=skipped.environment)
        except InvalidRecord:
            left = self.for_others(record)
            if left is None or self._names_ours(record, feed):
                raise
            return left

    def for_others(self, record: Record) -> Parsed | None:
        """The record as one to skip, where its header names an environment of another cell.

        To be asked where the record can't be read: the cell that has the environment says what is wrong with it.
        """
        named = record.header("environment")
        if named:
            try:
                self._rules.environment(named, _NOBODYS)
            except IgnoredRecord as skipped:
                return Parsed(ignored=skipped.reason, environment=skipped.environment)
            except InvalidRecord:
                pass
        return None

    def _names_ours(self, record: Record, feed: Feed) -> bool:
        """Whether the payload itself says that it is for us, which counts more than the header."""
        try:
            self._parse(record, feed, self._asking)
        except OwnEnvironmentNamed:
            return True
        except (InvalidRecord, IgnoredRecord):
            return False
        return False

    def _parse(self, record: Record, feed: Feed, rules: Rules | None = None) -> Parsed:
        rules = rules or self._rules
        value = checked(record.value, rules.limits)
        return (self._formats.find(feed.format) or _unknown(feed)).parse(value, feed, rules)

    def _of_nobody(self, problem: InvalidValue, feed: Feed, position: int) -> Normalized:
        """One event, which says of which cohorts, but not who. Where it arrived, nothing else names an environment."""
        rejects = [Reject(None, problem.reason, problem.detail, problem.cohorts)]
        return Normalized([], rejects, 1, environment=self._rules.environment(MISSING, feed), position=position)

    def _versioned(self, parsed: Parsed, environment: str, arrived_us: int, position: int) -> Normalized:
        """What was parsed, at its versions. A clock that is too far ahead is not believed."""
        latest_us = arrived_us + self._rules.limits.future_skew_s * 1_000_000
        groups, clearing, is_ahead = [], None, False
        for changes in parsed.changes:
            time_us = changes.event_time_us
            if time_us is None:
                time_us = arrived_us
            elif time_us > latest_us:
                time_us, is_ahead = arrived_us, True
            cohort = changes.cohort
            groups.append(
                DeltaGroup(
                    segment_of(environment, cohort.integration, cohort.cohort_id),
                    cohort,
                    parsed.context_kind,
                    changes.included,
                    Version(time_us, position),
                    changes.context_keys,
                    changes.places,
                )
            )
        operation = parsed.operation
        if operation is not None:
            time_us = operation.event_time_us or arrived_us
            if time_us > latest_us:
                time_us, is_ahead = arrived_us, True
            cohort = operation.cohort
            clearing = Clearing(
                segment_of(environment, cohort.integration, cohort.cohort_id),
                cohort,
                parsed.context_kind,
                Version(time_us, position),
                operation.page,
            )
        return Normalized(
            groups,
            parsed.rejects,
            parsed.members,
            conflicts=parsed.conflicts,
            clearing=clearing,
            environment=environment,
            position=position,
            future_event_time=is_ahead,
        )


def _with_headers(feed: Feed, record: Record) -> Feed:
    """The feed as this record's headers change it: they say which format it has, and may name the environment."""
    integration, environment = record.header("integration"), record.header("environment")
    if not integration and not environment:
        return feed
    return msgspec.structs.replace(feed, format=integration or feed.format, environment=environment or feed.environment)


def _unknown(feed: Feed) -> Never:
    if feed.format == HEADER:
        raise InvalidRecord(Reason.INTEGRATION_UNKNOWN, "the record has no header `integration`")
    raise InvalidRecord(Reason.INTEGRATION_UNKNOWN, "there is no integration of this name")
