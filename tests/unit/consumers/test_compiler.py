"""What must hold for every manifest, also for those that nobody wrote yet.

A manifest is drawn at random, members are drawn at random, and a payload is made by putting each thing where the
manifest's pointers lead. What the compiled parser reads must be what the payload was made from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from consumers.errors import IgnoredRecord, InvalidRecord, Reject
from consumers.feeds import Environments, Limits
from consumers.manifest import ManifestError, compiled
from consumers.parsed import Change, Operation, Parsed
from consumers.request_parser import AnyOf, RequestParser
from consumers.rules import Rules
from tests.unit.consumers.meaning import a_feed, as_json

RULES = Rules(limits=Limits(), environments=Environments())
FEED = a_feed(format="drawn", environment="feed's", context_kind="account")

CONTAINERS: tuple[tuple[str, ...], ...] = ((), ("p",), ("p", "q/~"), ("é", "", "~1"), ("list", "1"), ("list", "0", "x"))
LEAF = {
    "environment": "env~id",
    "kind": "kind",
    "cohort_id": "cohort/id",
    "cohort_name": "name",
    "cohort_url": "url",
    "members": "members",
    "add": "add",
    "remove": "remove",
    "action": "do",
    "session": "session",
    "page": "page",
    "pages": "0pages",
}
ACTIONS = {"Join": "add", "leave": "remove", "all of them": "replace", "nobody": "drain", "touch": "ignore"}
PATTERN = "^(join|enter)"


class Member(NamedTuple):
    """One member as it was drawn."""

    key: str | int
    included: bool
    cohort_id: str | int | None
    cohort_name: str | None
    cohort_url: str | None


class Drawn(NamedTuple):
    """A manifest, and what a payload for it says."""

    request_parser: dict[str, Any]
    method: str
    pointers: dict[str, str]
    said: dict[str, Any]
    members: list[Member]
    is_named_by_first: bool
    """Whether the record's cohort is what its first member says, as with Amplitude."""

    def in_lists(self) -> list[list[Member]]:
        """The members as the payload lists them."""
        if self.method != "lists":
            return [self.members]
        return [[member for member in self.members if member.included is wanted] for wanted in (True, False)]

    def cohort(self) -> tuple[str | None, str | None, str | None]:
        """Id, name and link of the record's cohort."""
        said, first = self.said, next(iter(self.in_lists()[0]), None)
        if not self.is_named_by_first:
            url = said["cohort_url"] if "cohortUrlPath" in self.request_parser else None
            return str(said["cohort_id"]), said["cohort_name"], url
        return (str(first.cohort_id), first.cohort_name, None) if first else (None, None, None)


def pointer(tokens: Sequence[str]) -> str:
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def put(document: dict[str, Any], path: str, value: object) -> None:
    """Puts the value where the pointer leads, making what must be on the way."""
    tokens = [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")[1:]]
    place: Any = document
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        empty: Any = [] if following is not None and following.isdigit() and token == "list" else {}
        if isinstance(place, list):
            place.extend({} for _ in range(int(token) + 1 - len(place)))
            if following is None:
                place[int(token)] = value
            place = place[int(token)]
        elif following is None:
            place[token] = value
        else:
            place = place.setdefault(token, empty)


KEYS = st.one_of(st.sampled_from(["u1", "u2", "ü", " x ", "~/"]), st.integers(-(2**70), 2**70))
COHORTS = st.sampled_from(["c1", "c 2", "~", 0, 2**65])
NAMES = st.sampled_from(["Beta", "Gamma & <Delta>"])
URLS = st.none() | st.sampled_from(["https://example.com/c", "x:y"])


@st.composite
def member_parsers(draw: st.DrawFn, method: str, *, own_cohorts: bool) -> dict[str, str]:
    optional = {"cohortNamePath": "/own/na~1me", "cohortUrlPath": "/url"}
    parser: dict[str, str] = {"memberIdPath": draw(st.sampled_from(["/id", "/who/id~0", "/ids/0"]))}
    if method == "boolean":
        parser["booleanMembershipPath"] = draw(st.sampled_from(["/in", "/deep/er/in"]))
    if own_cohorts:
        parser["cohortIdPath"] = "/own/cohort"
        parser |= {field: path for field, path in optional.items() if draw(st.booleans())}
    return parser


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    method = draw(st.sampled_from(["boolean", "lists", "words", "matcher"]))
    pointers = {role: pointer((*draw(st.sampled_from(CONTAINERS)), leaf)) for role, leaf in LEAF.items()}
    own_cohorts = method != "words" and draw(st.booleans())
    member = draw(member_parsers(method, own_cohorts=own_cohorts))
    is_named_by_first = own_cohorts and draw(st.booleans())
    if is_named_by_first:
        in_first = f"{pointers['add' if method == 'lists' else 'members']}/0/own"
        pointers |= {"cohort_id": f"{in_first}/cohort", "cohort_name": f"{in_first}/na~1me"}
    parser: dict[str, Any] = {
        "environmentIdPath": pointers["environment"],
        "cohortIdPath": pointers["cohort_id"],
        "cohortNamePath": pointers["cohort_name"],
        "memberArrayParser": member,
    }
    if draw(st.booleans()):
        parser["contextKindPath"] = pointers["kind"]
    if not is_named_by_first and draw(st.booleans()):
        parser["cohortUrlPath"] = pointers["cohort_url"]
    if method == "lists":
        parser |= {"addMemberArrayPath": pointers["add"], "removeMemberArrayPath": pointers["remove"]}
    else:
        parser["memberArrayPath"] = pointers["members"]
    said: dict[str, Any] = {
        "environment": draw(st.sampled_from([None, "staging", 7])),
        "kind": draw(st.sampled_from([None, "device"])),
    }
    if not is_named_by_first:
        said |= {"cohort_id": draw(COHORTS), "cohort_name": draw(st.none() | NAMES), "cohort_url": draw(URLS)}
    if method == "matcher":
        parser["arrayInclusion"] = {"path": pointers["action"], "matcher": PATTERN}
        said["action"] = draw(st.sampled_from(["join", "entered", "leave", "rejoin", ""]))
    if method == "words":
        paths = {"sessionPath": "session", "pagePath": "page", "pagesPath": "pages"}
        parser["cohortSync"] = {"actionPath": pointers["action"], "actions": ACTIONS} | {
            name: pointers[role] for name, role in paths.items()
        }
        said["action"] = draw(st.sampled_from([*ACTIONS, " JOIN ", "LEAVE"]))
        said |= draw(st.sampled_from([{}, {"session": "s1"}, {"session": "s1", "page": 2, "pages": 3}]))
    own = COHORTS if is_named_by_first else COHORTS | st.none() if own_cohorts else st.none()
    names = st.none() | NAMES if "cohortNamePath" in member else st.none()
    urls = URLS if "cohortUrlPath" in member else st.none()
    drawn_members = st.builds(Member, KEYS, st.booleans(), own, names, urls)
    members = draw(st.lists(drawn_members, max_size=5, unique_by=lambda m: str(m.key)))
    return Drawn(parser, method, pointers, said, members, is_named_by_first)


def payload_of(case: Drawn) -> dict[str, Any]:
    """A payload that says what was drawn, where the manifest's pointers lead."""
    document: dict[str, Any] = {}
    for role, value in case.said.items():
        if value is not None:
            put(document, case.pointers[role], value)
    paths = case.request_parser["memberArrayParser"]
    for role, members in zip(roles_of(case), case.in_lists(), strict=True):
        put(document, case.pointers[role], [item_of(member, paths) for member in members])
    return document


def roles_of(case: Drawn) -> tuple[str, ...]:
    return ("add", "remove") if case.method == "lists" else ("members",)


def item_of(member: Member, paths: dict[str, str]) -> dict[str, Any]:
    item: dict[str, Any] = {}
    said = {
        "memberIdPath": member.key,
        "booleanMembershipPath": member.included,
        "cohortIdPath": member.cohort_id,
        "cohortNamePath": member.cohort_name,
        "cohortUrlPath": member.cohort_url,
    }
    for field, path in paths.items():
        if path == "/ids/0":
            item["ids"] = [member.key]
        elif said[field] is not None:
            put(item, path, said[field])
    return item


def expected(case: Drawn) -> list[tuple[Any, ...]] | str:
    """What the payload says, straight from what was drawn: a reason to ignore it, or everything in it."""
    action = ACTIONS_FOLDED.get(str(case.said.get("action")).strip().casefold()) if case.method == "words" else None
    if action == "ignore":
        return "no_membership_change"
    record_cohort, _, _ = case.cohort()
    found: list[tuple[Any, ...]] = []
    if action == "drain":
        return [("drain", record_cohort)]
    if action == "replace":
        page = case.said.get("session"), case.said.get("page", 1), case.said.get("pages")
        found.append(("replace", record_cohort, *page))
    elif not case.members:
        return "no_members"
    for place, member in enumerate(chain.from_iterable(case.in_lists())):
        if case.method == "matcher":
            included = case.said["action"] in ("join", "entered")
        elif case.method == "words":
            included = action != "remove"
        else:
            included = member.included
        cohort = record_cohort if member.cohort_id is None else str(member.cohort_id)
        found.append((place, str(member.key), included, cohort))
    return found


ACTIONS_FOLDED = {word.casefold(): action for word, action in ACTIONS.items()}


def expected_cohorts(case: Drawn) -> set[tuple[str | None, str | None, str | None]]:
    """Every cohort that a member is in. Its name and link are the first that any of its members, or the record, has."""
    shared = case.cohort()
    found: dict[str | None, tuple[str | None, str | None]] = {}
    for member in chain.from_iterable(case.in_lists()):
        own = shared[0] if member.cohort_id is None else str(member.cohort_id)
        _, record_name, record_url = shared if own == shared[0] else (None, None, None)
        name, url = found.get(own, (None, None))
        found[own] = (
            name or member.cohort_name or record_name,
            url or member.cohort_url or record_url,
        )
    return {(cohort_id, *rest) for cohort_id, rest in found.items()}


def in_tuples(parsed: Parsed) -> list[tuple[Any, ...]] | str:
    if parsed.ignored is not None:
        return parsed.ignored.value
    return [_in_tuple(item) for item in parsed.in_order()]


def _in_tuple(item: Operation | Change | Reject) -> tuple[Any, ...]:
    if isinstance(item, Operation):
        page = item.page
        rest = (page.session, page.number, page.pages) if page else ()
        return (item.name, item.cohort.cohort_id, *rest)
    assert isinstance(item, Change), item
    return item.place, item.context_key, item.included, item.cohort.cohort_id


def compile_(request_parser: dict[str, Any]) -> RequestParser:
    manifest = {"capabilities": {"syncedSegment": {"requestParser": request_parser}}}
    parser = compiled(as_json(manifest), "drawn")
    assert not isinstance(parser, AnyOf)
    return parser


@given(case=drawn())
@settings(max_examples=400)
def test_what_is_read_is_what_the_payload_was_made_from(case: Drawn) -> None:
    parser, value = compile_(case.request_parser), as_json(payload_of(case))

    slow, quick = parser.parse_each(value, FEED, RULES), parser.parse_columns(value, FEED, RULES)

    for parsed in filter(None, (slow, quick)):
        assert in_tuples(parsed) == expected(case)
        if parsed.ignored is None:
            assert parsed.environment == str(case.said["environment"] or "feed's")
            named = case.said["kind"] if "contextKindPath" in case.request_parser else None
            assert parsed.context_kind == (named or "account")
        cohorts = {changes.cohort for changes in parsed.changes}
        assert not cohorts or {(each.cohort_id, each.name, each.url) for each in cohorts} == expected_cohorts(case)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*LEAF.values(), "id", "in"]), inner),
    max_leaves=8,
)


@st.composite
def entangled(draw: st.DrawFn) -> Drawn:
    """A manifest in which some pointers lead to the same place, or one through another."""
    case = draw(drawn())
    fields = {"environmentIdPath", "contextKindPath", "cohortIdPath", "cohortNamePath", "cohortUrlPath"}
    fields |= {"memberArrayPath", "addMemberArrayPath", "removeMemberArrayPath"}
    parser = dict(case.request_parser)
    for _ in range(draw(st.integers(0, 2))):
        one, other = (draw(st.sampled_from(sorted(fields & parser.keys()))) for _ in range(2))
        parser[one] = parser[other] + draw(st.sampled_from(["", "/0", "/x", "/0/own/cohort"]))
    assume(parser.get("addMemberArrayPath", "") != parser.get("removeMemberArrayPath"))
    return case._replace(request_parser=parser)


@given(case=entangled(), role=st.sampled_from(list(LEAF)), odd=JSON, other=JSON)
@settings(max_examples=400)
def test_nothing_in_a_payload_raises_or_removes_who_is_not_said_to_leave(
    case: Drawn, role: str, odd: object, other: object
) -> None:
    try:
        parser = compile_(case.request_parser)
    except ManifestError:  # pointers so entangled that they can't work
        reject()
    document = payload_of(case)
    with suppress(KeyError, AttributeError, TypeError, IndexError, ValueError):  # the way there may be closed
        put(document, case.pointers[role], odd)
    for payload in (document, other):
        short, long = (attempt(way, as_json(payload)) for way in (parser.parse_columns, parser.parse_each))

        assert short is None or said_by(short) == said_by(long)
        for item in long.in_order() if isinstance(long, Parsed) else ():
            if isinstance(item, Operation):
                assert action_of(case, payload) == item.name
            elif isinstance(item, Change) and not item.included:
                assert leaves(case, payload, item)


def attempt(parse: Callable[..., Parsed | None], value: bytes) -> Parsed | str | None:
    try:
        return parse(value, FEED, RULES)
    except (InvalidRecord, IgnoredRecord) as problem:
        return str(problem)


def said_by(parsed: Parsed | str | None) -> object:
    if not isinstance(parsed, Parsed):
        return parsed
    about = parsed.environment, parsed.context_kind, parsed.members, parsed.conflicts, parsed.ignored
    return *about, *parsed.in_order()


def leaves(case: Drawn, document: object, change: Change) -> bool:
    """Whether the member at this place has this key, and is said to be out."""
    parser = case.request_parser
    listed = [(field, at(document, parser[field])) for field in (*LISTS, "memberArrayPath") if field in parser]
    members = [(field, member) for field, found in listed for member in (found if isinstance(found, list) else [])]
    field, member = members[change.place]
    paths = parser["memberArrayParser"]
    assert str(at(member, paths["memberIdPath"])) == change.context_key
    if case.method == "boolean":
        return says_out(at(member, paths["booleanMembershipPath"]))
    if case.method == "lists":
        return field == "removeMemberArrayPath"
    return action_of(case, document) == "remove"


def action_of(case: Drawn, document: object) -> str | None:
    """What the payload's action means, None for one that means nothing."""
    said = at(document, case.pointers["action"])
    if not isinstance(said, str):
        return None
    if case.method == "matcher":
        return "add" if re.search(PATTERN, said) else "remove"
    return ACTIONS_FOLDED.get(said.strip().casefold())


LISTS = ("addMemberArrayPath", "removeMemberArrayPath")


def at(document: Any, path: str) -> Any:
    """What stands at this pointer, None where nothing does."""
    for token in path.split("/")[1:]:
        try:
            name = token.replace("~1", "/").replace("~0", "~")
            document = document[name] if isinstance(document, dict) else document[int(token)]
        except (LookupError, TypeError, ValueError):
            return None
    return document


def says_out(value: object) -> bool:
    return value is False or (not isinstance(value, float) and value in ("false", "False", "0", 0))
