"""Payloads that nobody thought of, for the properties that must hold for all: values that are mostly usual, and odd."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from typing import Any

import msgspec
from hypothesis import strategies as st

from consumers.actions import Action, ActionWords
from consumers.formats import Formats, known_integrations
from consumers.pointer import Pointer
from consumers.request_parser import AnyOf, RequestParser

WORDS = st.sampled_from(
    [
        *("identify", "track", "audience", "journey_step", "trait", "beta", "c1", "true", "False", "Audience Exited"),
        *("deleted", "Amplitude Cohort Sync", "", " ", "1692206763", "2023-08-16T17:26:03Z"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=5)
IDS = st.integers() | st.text(max_size=4) | st.sampled_from(["u1", "u2", "x" * 513, "é" * 257, "a\0", " ", ""])
ODD = st.none() | st.floats(allow_nan=False) | st.booleans() | st.lists(st.none(), max_size=1)
COHORT_IDS = st.sampled_from(["c1", "c1", "c1", "c2", "a b", 7, "7", None, "", " ", 4.2])
TEXTS = st.sampled_from([None, "", "Beta", "Gamma", " ", 3])


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 19).flatmap(lambda roll: odd if roll == 0 else usual)


def objects(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


def _parsers() -> Iterator[tuple[str, RequestParser]]:
    formats = Formats()
    for name in known_integrations():
        known = formats.find(name)
        if isinstance(known, RequestParser):
            yield name, known
        elif isinstance(known, AnyOf):
            yield from ((f"{name}-{shape}", parser) for shape, parser in enumerate(known._parsers, 1))


PARSERS = dict(_parsers())
"""The parsers of the project's own manifests; one for each shape of an integration that has several."""

_NOTHING = object()
"""Stands for what is left out of a payload."""

_NO_LISTS: tuple[object, ...] = (_NOTHING, None, {}, "u1", [None])
_NO_ACTIONS: tuple[object, ...] = ("drop", None, _NOTHING, 3, ["add"])

_ANY: dict[str, st.SearchStrategy[Any]] = {
    "environment": st.sampled_from([_NOTHING, None, "", "other", 7, False]),
    "context_kind": st.sampled_from(["my kind!", 3, ""]),
    "cohort_id": COHORT_IDS | st.just(_NOTHING),
    "cohort_name": TEXTS | st.just(_NOTHING),
    "cohort_url": TEXTS | st.just(_NOTHING),
    "session": st.sampled_from([_NOTHING, None, "", 7, " ", True, "s" * 257]),
    "page": st.sampled_from([_NOTHING, None, 2, "2", 0, 4.0, "x", {}]),
    "pages": st.sampled_from([_NOTHING, None, 1, "3", -1, True]),
    "member_id": IDS | ODD | st.just(_NOTHING),
    "member_included": SCALARS | st.just(_NOTHING),
}
_GOOD: dict[str, st.SearchStrategy[Any]] = {
    "environment": st.sampled_from(["production", "staging"]),
    "context_kind": st.sampled_from([_NOTHING, None, "", "device"]),
    "cohort_id": st.just("c1"),
    "cohort_name": st.sampled_from([_NOTHING, None, "Beta"]),
    "cohort_url": st.sampled_from([_NOTHING, None, "https://b"]),
    "session": st.just("s1"),
    "page": st.just(1),
    "pages": st.just(2),
    "member_included": st.booleans(),
}


@st.composite
def payloads_of(draw: st.DrawFn, parser: RequestParser, *, good: bool = False) -> dict[str, Any]:
    """What this parser's manifest describes: odd at any place, or `good`, with different members in every list."""
    writer = _Writer(draw, parser, good=good)
    payload: dict[str, Any] = {}
    for each in parser._lists:
        _put(payload, each.pointer.tokens, writer.members())
    for name, pointer in writer.of_record.items():
        _put(payload, pointer.tokens, writer.value(name))
    return payload


class _Writer:
    """Draws what belongs at each of a manifest's pointers."""

    def __init__(self, draw: st.DrawFn, parser: RequestParser, *, good: bool) -> None:
        self._draw = draw
        self._good = good
        self._numbers = count()
        self._actions = _actions(parser, good=good)
        pointers: dict[str, Pointer | None] = msgspec.structs.asdict(parser._paths)
        known = {name: pointer for name, pointer in pointers.items() if pointer is not None}
        self._of_member = {name: pointer for name, pointer in known.items() if name.startswith("member_")}
        # What the record takes from its first member is written with that.
        self.of_record = {
            name: pointer
            for name, pointer in known.items()
            if name not in self._of_member and not any(pointer.below(each.pointer) for each in parser._lists)
        }

    def members(self) -> object:
        if not self._good and self._draw(st.integers(0, 14)) == 0:
            return self._draw(st.sampled_from(_NO_LISTS))
        return [self._member() for _ in range(self._draw(st.integers(1 if self._good else 0, 4)))]

    def value(self, name: str) -> object:
        good = self._good or self._draw(st.integers(0, 5)) > 0
        if good and name == "member_id":
            return f"u{next(self._numbers)}"
        if name == "action":
            return self._draw(self._actions)
        values = _GOOD if good else _ANY
        return self._draw(values[name if name in values else name.removeprefix("member_")])

    def _member(self) -> dict[str, Any]:
        member: dict[str, Any] = {"extra": 1.5}
        for name, pointer in self._of_member.items():
            _put(member, pointer.tokens, self.value(name))
        return member


def _actions(parser: RequestParser, *, good: bool) -> st.SearchStrategy[Any]:
    if not isinstance(parser._actions, ActionWords):
        return st.just(_NOTHING)
    known = parser._actions._words
    if good:
        return st.sampled_from([word for word, action in known.items() if action is not Action.DRAIN])
    return mostly(st.sampled_from([*known, *map(str.upper, known)]), st.sampled_from(_NO_ACTIONS))


def _put(document: dict[str, Any], way: Sequence[str], value: object) -> None:
    """Set what stands at the end of this way, through objects and the first places of lists."""
    if value is _NOTHING:
        return
    inner: Any = document
    for step, following in pairwise(way):
        empty: Any = [{}] if following == "0" else {}
        inner = inner[0] if isinstance(inner, list) else inner.setdefault(step, empty)
    inner[way[-1]] = value
