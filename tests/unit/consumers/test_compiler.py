"""What must hold for every manifest, also for those that nobody wrote yet.

A manifest is drawn at random, members are drawn at random, and a payload is made by putting each thing where the
manifest's pointers lead. What the compiled parser reads must be what the payload was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.errors import IgnoredRecord, InvalidRecord, Reject
from consumers.feeds import Environments, Limits
from consumers.manifest import compiled
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


class Drawn(NamedTuple):
    """A manifest, and what a payload for it says."""

    request_parser: dict[str, Any]
    method: str
    pointers: dict[str, str]
    said: dict[str, Any]
    members: list[Member]


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


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    method = draw(st.sampled_from(["boolean", "lists", "words", "matcher"]))
    pointers = {role: pointer((*draw(st.sampled_from(CONTAINERS)), leaf)) for role, leaf in LEAF.items()}
    own_cohorts = method != "words" and draw(st.booleans())
    member = {"memberIdPath": draw(st.sampled_from(["/id", "/who/id~", "/ids/0"]).map(_escaped))}
    if method == "boolean":
        member["booleanMembershipPath"] = draw(st.sampled_from(["/in", "/deep/er/in"]))
    if own_cohorts:
        member["cohortIdPath"] = "/own/cohort"
    parser: dict[str, Any] = {
        "environmentIdPath": pointers["environment"],
        "cohortIdPath": pointers["cohort_id"],
        "cohortNamePath": pointers["cohort_name"],
        "memberArrayParser": member,
    }
    if draw(st.booleans()):
        parser["contextKindPath"] = pointers["kind"]
    if draw(st.booleans()):
        parser["cohortUrlPath"] = pointers["cohort_url"]
    if method == "lists":
        parser |= {"addMemberArrayPath": pointers["add"], "removeMemberArrayPath": pointers["remove"]}
    else:
        parser["memberArrayPath"] = pointers["members"]
    said: dict[str, Any] = {
        "environment": draw(st.sampled_from([None, "staging", 7])),
        "kind": draw(st.sampled_from([None, "device"])),
        "cohort_id": draw(COHORTS),
        "cohort_name": draw(st.none() | NAMES),
        "cohort_url": draw(st.none() | st.just("https://example.com/c")),
    }
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
    own = COHORTS | st.none() if own_cohorts else st.none()
    members = draw(st.lists(st.builds(Member, KEYS, st.booleans(), own), max_size=5, unique_by=lambda m: str(m.key)))
    return Drawn(parser, method, pointers, said, members)


def _escaped(path: str) -> str:
    return path.replace("id~", "id~0")


def payload_of(case: Drawn) -> dict[str, Any]:
    """A payload that says what was drawn, where the manifest's pointers lead."""
    document: dict[str, Any] = {}
    for role, value in case.said.items():
        if value is not None:
            put(document, case.pointers[role], value)
    paths = case.request_parser["memberArrayParser"]
    lists: dict[str, list[Any]] = {"add": [], "remove": [], "members": []}
    for member in case.members:
        item: dict[str, Any] = {}
        if paths["memberIdPath"] == "/ids/0":
            item["ids"] = [member.key]
        else:
            put(item, paths["memberIdPath"], member.key)
        if "booleanMembershipPath" in paths:
            put(item, paths["booleanMembershipPath"], member.included)
        if member.cohort_id is not None:
            put(item, paths["cohortIdPath"], member.cohort_id)
        in_list = ("add" if member.included else "remove") if case.method == "lists" else "members"
        lists[in_list].append(item)
    for role in ("add", "remove") if case.method == "lists" else ("members",):
        put(document, case.pointers[role], lists[role])
    return document


def expected(case: Drawn) -> list[tuple[Any, ...]] | str:
    """What the payload says, straight from what was drawn: a reason to ignore it, or everything in it."""
    action = ACTIONS_FOLDED.get(str(case.said.get("action")).strip().casefold()) if case.method == "words" else None
    if action == "ignore":
        return "no_membership_change"
    record_cohort = str(case.said["cohort_id"])
    found: list[tuple[Any, ...]] = []
    if action == "drain":
        return [("drain", record_cohort)]
    if action == "replace":
        page = case.said.get("session"), case.said.get("page", 1), case.said.get("pages")
        found.append(("replace", record_cohort, *page))
    elif not case.members:
        return "no_members"
    ordered = case.members
    if case.method == "lists":
        ordered = sorted(case.members, key=lambda member: not member.included)
    for place, member in enumerate(ordered):
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
@settings(max_examples=400, deadline=None)
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
        shared = str(case.said["cohort_id"])
        assert {each.name for each in cohorts if each.cohort_id == shared} <= {case.said["cohort_name"]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*LEAF.values(), "id", "in"]), inner),
    max_leaves=8,
)


@given(case=drawn(), role=st.sampled_from(list(LEAF)), odd=JSON, other=JSON)
@settings(max_examples=300, deadline=None)
def test_nothing_in_a_payload_raises_or_removes_who_is_not_said_to_leave(
    case: Drawn, role: str, odd: object, other: object
) -> None:
    parser, document = compile_(case.request_parser), payload_of(case)
    with suppress(KeyError, AttributeError, TypeError, IndexError, ValueError):  # the way there may be closed
        put(document, case.pointers[role], odd)
    said = expected(case)
    leaving = {each[1] for each in said if len(each) == 4 and each[2] is False} if isinstance(said, list) else set()
    for value in (document, other):
        with suppress(InvalidRecord, IgnoredRecord):
            parsed = parser.parse(as_json(value), FEED, RULES)
            gone = {key for changes in parsed.changes if not changes.included for key in changes.context_keys}
            if role in ("members", "add", "remove", "action"):
                # What was put there may name people itself, but takes nobody out where a value must say so.
                assert case.method != "boolean" or not gone or says_out(value)
            else:
                assert gone <= leaving


def says_out(document: object) -> bool:
    """Whether a value anywhere in it says false."""
    if isinstance(document, dict):
        return any(map(says_out, document.values()))
    if isinstance(document, list):
        return any(map(says_out, document))
    return document is False or (document in ("false", "False", "0", 0) and not isinstance(document, float))
