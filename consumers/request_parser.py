"""The one parser of all manifest formats: it goes where a manifest's pointers lead.

A payload of this kind lists members, each with an id and a boolean, and may name the cohort once or at each member.
Well-formed lists of many members take the short way through `member_columns`; everything else is read here, member by
member, and both ways come to the same result.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from consumers import values
from consumers.cohorts import Named, cohort_of_member, cohort_of_record, named_by_any
from consumers.document import decode, member_list
from consumers.errors import Ignored, InvalidRecord, InvalidValue, Reason
from consumers.feeds import Feed
from consumers.member_columns import ColumnDecoder, Columns
from consumers.parsed import Collector, Parsed, changes_of
from consumers.pointer import Pointer
from consumers.rules import Rules
from consumers.typed_decoder import NotOneShapeError
from consumers.values import MISSING
from stores.model import Cohort


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything stands: in the record, and (`member_…`) in each of its members."""

    environment: Pointer
    context_kind: Pointer | None
    cohort_id: Pointer
    cohort_name: Pointer
    cohort_url: Pointer | None
    members: Pointer
    member_id: Pointer
    member_included: Pointer
    member_cohort_id: Pointer | None
    member_cohort_name: Pointer | None
    member_cohort_url: Pointer | None


class RequestParser:
    """Reads the payloads of one integration as its manifest describes them."""

    def __init__(self, integration: str, paths: Paths) -> None:
        self.name = integration
        self._paths = paths
        self._names = {name: str(path) for name, path in msgspec.structs.asdict(paths).items()}
        self._columns = _column_decoder(paths)

    def parse(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The changes of one record. What is promised is said at `consumers.formats.Format`."""
        return self.parse_columns(value, feed, rules) or self.parse_each(value, feed, rules)

    def parse_columns(self, value: bytes, feed: Feed, rules: Rules) -> Parsed | None:
        """The short way: all members at once, or None where they are not all good and of one cohort."""
        columns = self._columns.decode(value) if self._columns else None
        if columns is None:
            return None
        environment = rules.environment(columns.one("environment"), feed)
        kind = self._context_kind(columns.one("context_kind"), feed)
        keys = values.context_keys(columns.column("member_id"), rules.limits.context_key_bytes)
        cohort = self._common_cohort(columns, feed)
        if keys is None or cohort is None:
            return None
        return Parsed(
            environment=environment,
            context_kind=kind,
            changes=changes_of(cohort, keys, columns.column("member_included")),
            members=len(keys),
        )

    def _common_cohort(self, columns: Columns, feed: Feed) -> Cohort | None:
        """The one cohort of all members. Its name and link are the first that any member has."""
        ids, names, urls = (
            columns.column(name) for name in ("member_cohort_id", "member_cohort_name", "member_cohort_url")
        )
        if len(set(ids)) > 1:
            return None
        named = columns.one("cohort_id"), columns.one("cohort_name"), columns.one("cohort_url")
        try:
            shared = self._cohort_of_record(named, feed)
            cohort = self._cohort_of_member(shared, (_first(ids), _first(names), _first(urls)))
        except InvalidValue:
            return None
        return named_by_any(cohort, names, urls)

    def parse_each(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The long way, member by member, for any payload."""
        document = decode(value)
        if not isinstance(document, dict):
            raise InvalidRecord(Reason.PAYLOAD_INVALID, "the value is not a JSON object")
        environment = rules.environment(self._paths.environment.find(document), feed)
        members = member_list(self._paths.members.find(document), self._names["members"])
        if not members:
            return Parsed(ignored=Ignored.NO_MEMBERS)
        kind = self._context_kind(_find(self._paths.context_kind, document), feed)
        collector = self._collected(document, members, feed, rules)
        return collector.parsed(environment=environment, context_kind=kind, members=len(members))

    def _collected(self, document: object, members: Sequence[object], feed: Feed, rules: Rules) -> Collector:
        paths = self._paths
        named = _find(paths.cohort_id, document), _find(paths.cohort_name, document), _find(paths.cohort_url, document)
        shared = self._cohort_of_record(named, feed)
        collector = Collector()
        for place, member in enumerate(members):
            try:
                self._collect(collector, place, member, shared, rules.limits.context_key_bytes)
            except InvalidValue as problem:
                collector.reject(place, problem.within(f"{self._names['members']}/{place}"))
        return collector

    def _collect(
        self, collector: Collector, place: int, member: object, shared: Cohort | InvalidValue, max_bytes: int
    ) -> None:
        """Add one member of the list. Raises `InvalidValue`, as seen from the member, where it cannot be used."""
        if not isinstance(member, dict):
            raise InvalidValue(Reason.MEMBER_INVALID, "it is not an object")
        paths, names = self._paths, self._names
        key = values.context_key(paths.member_id.find(member), names["member_id"], max_bytes)
        included = values.membership(paths.member_included.find(member), names["member_included"])
        named = (
            _find(paths.member_cohort_id, member),
            _find(paths.member_cohort_name, member),
            _find(paths.member_cohort_url, member),
        )
        collector.add(place, self._cohort_of_member(shared, named), key, included=included)

    def _context_kind(self, named: object, feed: Feed) -> str:
        return values.context_kind(named, self._names["context_kind"], feed.context_kind)

    def _cohort_of_record(self, named: Named, feed: Feed) -> Cohort | InvalidValue:
        """The cohort of the members that name none, or what is wrong with it where each member could name its own."""
        try:
            return cohort_of_record(self.name, feed, named, self._names["cohort_id"])
        except InvalidValue as problem:
            if self._paths.member_cohort_id is None:
                raise
            return problem

    def _cohort_of_member(self, shared: Cohort | InvalidValue, named: Named) -> Cohort:
        return cohort_of_member(shared, self.name, named, self._names["member_cohort_id"])


def _column_decoder(paths: Paths) -> ColumnDecoder | None:
    pointers: dict[str, Pointer | None] = msgspec.structs.asdict(paths)
    del pointers["members"]
    try:
        return ColumnDecoder(pointers, paths.members)
    except NotOneShapeError:
        return None


def _find(pointer: Pointer | None, document: object) -> object:
    return MISSING if pointer is None else pointer.find(document)


def _first(column: Sequence[object]) -> object:
    return column[0] if column else MISSING
