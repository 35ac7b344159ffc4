"""The one parser of all manifest formats: it goes where a manifest's pointers lead.

A payload of this kind names a cohort and lists members. Who joins and who leaves is said by a boolean at each member,
by two lists, or by one action for all. Well-formed lists of many members take the short way through `member_columns`;
everything else is read here, member by member, and both ways come to the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import msgspec

from consumers import values
from consumers.actions import Action, Actions
from consumers.cohorts import Named, cohort_of_member, cohort_of_record, named_by_any
from consumers.document import decode
from consumers.errors import Ignored, InvalidRecord, InvalidValue, Reason
from consumers.feeds import Feed
from consumers.member_columns import ColumnDecoder, Columns
from consumers.member_lists import MemberList, collect_members, found_lists
from consumers.parsed import Changes, Collector, Operation, Parsed, changes_of
from consumers.pointer import Pointer
from consumers.replace_pages import page_of
from consumers.rules import Rules
from consumers.typed_decoder import NotOneShapeError
from consumers.values import MISSING
from stores.model import Cohort, Page


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything stands: in the record, and (`member_…`) in each of its members."""

    environment: Pointer
    context_kind: Pointer | None
    cohort_id: Pointer
    cohort_name: Pointer
    cohort_url: Pointer | None
    action: Pointer | None
    session: Pointer | None
    page: Pointer | None
    pages: Pointer | None
    member_id: Pointer
    member_included: Pointer | None
    member_cohort_id: Pointer | None
    member_cohort_name: Pointer | None
    member_cohort_url: Pointer | None


class RequestParser:
    """Reads the payloads of one integration as its manifest describes them."""

    def __init__(  # noqa: PLR0913 - all that a manifest can say
        self,
        integration: str,
        paths: Paths,
        lists: Sequence[MemberList],
        *,
        actions: Actions | None = None,
        environment_may_be_foreign: bool = False,
        response_body: str | None = None,
    ) -> None:
        self.name = integration
        self.response_body = response_body
        """What LaunchDarkly's endpoint answers, as a template of the manifest."""
        self._paths = paths
        self._names = {name: str(path) for name, path in msgspec.structs.asdict(paths).items()}
        self._lists = lists
        self._actions = actions
        self._environment_may_be_foreign = environment_may_be_foreign
        self._page_holder = _page_holder(paths, lists)
        self._columns = _column_decoder(paths, lists)

    def parse(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The changes of one record. What is promised is said at `consumers.formats.Format`."""
        return self.parse_columns(value, feed, rules) or self.parse_each(value, feed, rules)

    def parse_columns(self, value: bytes, feed: Feed, rules: Rules) -> Parsed | None:
        """The short way: all members at once, or None where they are not all good and of one cohort."""
        columns = self._columns.decode(value) if self._columns else None
        if columns is None:
            return None
        environment = self._environment(columns.one("environment"), feed, rules)
        action = self._action(columns.one("action"))
        if action in (Action.DRAIN, Action.IGNORE):
            return None
        kind = self._context_kind(columns.one("context_kind"), feed)
        keys = values.context_keys(columns.column("member_id"), rules.limits.context_key_bytes)
        cohort = self._common_cohort(columns, feed)
        if keys is None or cohort is None:
            return None
        operation = None
        if action is Action.REPLACE:
            number, pages = columns.one("page"), columns.one("pages")
            if self._paths.page is not None and (number is None or pages is None):
                return None  # the long way looks at why
            try:
                page = page_of(columns.one("session"), number, pages)
            except InvalidValue:
                return None
            operation = Operation(cohort, page)
        return Parsed(
            environment=environment,
            context_kind=kind,
            changes=self._changes(cohort, keys, columns, action),
            members=len(keys),
            operation=operation,
        )

    def _changes(self, cohort: Cohort, keys: list[str], columns: Columns, action: Action) -> Sequence[Changes]:
        if self._paths.member_included is not None:
            return changes_of(cohort, keys, columns.column("member_included"))
        groups, start = [], 0
        for each, members in zip(self._lists, columns.lists, strict=True):
            stop = start + len(members)
            if members:
                groups.append(Changes(cohort, _included(each.included, action), keys[start:stop], range(start, stop)))
            start = stop
        return groups

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
            named = _first(ids), _first(names), _first(urls)
            cohort = cohort_of_member(shared, self.name, named, self._names["member_cohort_id"])
        except InvalidValue:
            return None
        return named_by_any(cohort, names, urls)

    def parse_each(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The long way, member by member, for any payload."""
        return self.parse_document(decode(value), feed, rules)

    def recognizes(self, document: object) -> bool:
        """Whether this may be a payload of this integration: it has members, or an action, where they belong."""
        return any(each.pointer.find(document) is not MISSING for each in self._lists) or (
            self._paths.action is not None and self._paths.action.find(document) is not MISSING
        )

    def parse_document(self, document: object, feed: Feed, rules: Rules) -> Parsed:
        """The long way, from what was decoded already."""
        if not isinstance(document, dict):
            raise InvalidRecord(Reason.PAYLOAD_INVALID, "the value is not a JSON object")
        paths = self._paths
        environment = self._environment(paths.environment.find(document), feed, rules)
        action = self._action(_find(paths.action, document))
        if action is Action.IGNORE:
            return Parsed(ignored=Ignored.NO_MEMBERSHIP_CHANGE, members=1)
        if action in (Action.DRAIN, Action.REPLACE) and paths.cohort_id.is_barred(document):
            # Where the payload names no cohort the feed's is meant, but nobody is put out of it by nonsense.
            raise InvalidValue(Reason.COHORT_ID_INVALID, f"{paths.cohort_id} is within something that is no object")
        named = _find(paths.cohort_id, document), _find(paths.cohort_name, document), _find(paths.cohort_url, document)
        kind = _find(paths.context_kind, document)
        if action is Action.DRAIN:
            drained = Operation(cohort_of_record(self.name, feed, named, self._names["cohort_id"]))
            return Parsed(
                environment=environment, context_kind=self._context_kind(kind, feed), members=1, operation=drained
            )
        collector = Collector()
        # A full copy of nobody puts out everybody, so only an empty list can be one.
        lists = found_lists(self._lists, document, collector, may_be_null=action is not Action.REPLACE)
        members = sum(len(listed) for _, listed in lists)
        if not members and not collector.rejects and action is not Action.REPLACE:
            return Parsed(ignored=Ignored.NO_MEMBERS)
        context_kind = self._context_kind(kind, feed)
        shared = self._cohort_of_record(named, feed) if members or action is Action.REPLACE else None
        if shared is not None:
            collect = partial(self._collect, collector, shared, action, rules.limits.context_key_bytes)
            collect_members(lists, collector, collect)
        return collector.parsed(
            environment=environment,
            context_kind=context_kind,
            members=members,
            operation=self._replacing(document, shared, collector) if action is Action.REPLACE else None,
        )

    def _collect(  # noqa: PLR0913, PLR0917 - what is the same for all, and a member
        self,
        collector: Collector,
        shared: Cohort | InvalidValue,
        action: Action,
        max_bytes: int,
        place: int,
        of_list: bool | None,
        member: object,
    ) -> None:
        """Add one member of a list. Raises `InvalidValue`, as seen from the member, where it cannot be used."""
        paths, names = self._paths, self._names
        try:
            key = values.context_key(paths.member_id.find(_object(member)), names["member_id"], max_bytes)
            if paths.member_included is None:
                included = _included(of_list, action)
            else:
                included = values.membership(paths.member_included.find(member), names["member_included"])
        except InvalidValue as problem:
            with suppress(InvalidValue):
                problem.about(self._cohort_of_member(shared, member))
            raise
        collector.add(place, self._cohort_of_member(shared, member), key, included=included)

    def _replacing(
        self, document: object, shared: Cohort | InvalidValue | None, collector: Collector
    ) -> Operation | None:
        if not isinstance(shared, Cohort):
            return None
        try:
            page = self._page(document)
        except InvalidValue as problem:
            collector.reject(None, problem)
            return None
        return Operation(shared, page)

    def _page(self, document: object) -> Page:
        paths = self._paths
        # Without pages a session is complete from its first record on, so nonsense must not pass for none.
        for pointer in (paths.session, paths.page, paths.pages):
            if pointer is not None and pointer.is_barred(document):
                raise InvalidValue(Reason.PAGE_INVALID, f"{pointer} is within something that is no object")
        number, pages = _find(paths.page, document), _find(paths.pages, document)
        if number is pages is MISSING and self._page_holder is not None and self._page_holder.find(document):
            raise InvalidValue(Reason.PAGE_INVALID, f"{self._page_holder} says neither page nor pages")
        return page_of(_find(paths.session, document), number, pages)

    def _environment(self, named: object, feed: Feed, rules: Rules) -> str | None:
        if self._environment_may_be_foreign:
            return rules.environment_or_foreign(named, feed)
        return rules.environment(named, feed)

    def _action(self, value: object) -> Action:
        if self._actions is None:
            return Action.LISTS
        if (value is MISSING or value is None) and all(each.included is not None for each in self._lists):
            return Action.LISTS  # they say it without any action
        return self._actions.meaning(value, self._names["action"])

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

    def _cohort_of_member(self, shared: Cohort | InvalidValue, member: object) -> Cohort:
        paths = self._paths
        named = (
            _find(paths.member_cohort_id, member),
            _find(paths.member_cohort_name, member),
            _find(paths.member_cohort_url, member),
        )
        return cohort_of_member(shared, self.name, named, self._names["member_cohort_id"])


class AnyOf:
    """Reads payloads that one integration sends in several shapes."""

    def __init__(self, parsers: Sequence[RequestParser]) -> None:
        self._parsers = parsers
        self.name = parsers[0].name
        self.response_body = parsers[0].response_body

    def parse(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The changes of one record. What is promised is said at `consumers.formats.Format`."""
        for parser in self._parsers:
            if parsed := parser.parse_columns(value, feed, rules):
                return parsed
        return self.parse_each(value, feed, rules)

    def parse_each(self, value: bytes, feed: Feed, rules: Rules) -> Parsed:
        """The long way, by the first shape that the payload may have."""
        document = decode(value)
        fitting = next((parser for parser in self._parsers if parser.recognizes(document)), self._parsers[0])
        return fitting.parse_document(document, feed, rules)


def _included(of_list: bool | None, action: Action) -> bool:
    return action is not Action.REMOVE if of_list is None else of_list


def _page_holder(paths: Paths, lists: Sequence[MemberList]) -> Pointer | None:
    """The object that is there for the page alone, where there is one: then it can't be there for nothing."""
    if paths.page is None or paths.pages is None:
        return None
    holder = Pointer(paths.page.tokens[:-1])
    others = [paths.environment, paths.cohort_id, paths.cohort_name, *(each.pointer for each in lists)]
    others += filter(None, (paths.context_kind, paths.cohort_url, paths.action, paths.session))
    is_shared = not holder.tokens or any(other.below(holder) for other in others)
    return None if is_shared or paths.pages.below(holder) is None else holder


def _column_decoder(paths: Paths, lists: Sequence[MemberList]) -> ColumnDecoder | None:
    pointers: dict[str, Pointer | None] = msgspec.structs.asdict(paths)
    try:
        return ColumnDecoder(pointers, [each.pointer for each in lists])
    except NotOneShapeError:
        return None


def _object(member: object) -> dict[str, object]:
    if not isinstance(member, dict):
        raise InvalidValue(Reason.MEMBER_INVALID, "it is not an object")
    return member


def _find(pointer: Pointer | None, document: object) -> object:
    return MISSING if pointer is None else pointer.find(document)


def _first(column: Sequence[object]) -> object:
    return column[0] if column else MISSING
