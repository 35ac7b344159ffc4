"""What must hold for whatever a record becomes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from consumers.errors import InvalidRecord, Reason, Reject
from consumers.feeds import Limits
from consumers.normalize import Normalized
from consumers.replace_pages import SESSION_BYTES
from stores.model import DeltaGroup, Page
from tests.fuzz import removals
from tests.fuzz.inputs import NOW_MS, Input

_TEXT = re.compile(rb'"((?:[^"\\]|\\.){8,})"|(-?[0-9]{8,})')
_UNUSUAL = re.compile(r"[0-9@]|[^\x00-\x7f]")
_MOST_DETAILS = 10_000


class BrokenPromiseError(Exception):
    """A result that must not be. The text says which promise it breaks."""


class Promises:
    """Looks at one result after the other. Raises `BrokenPromiseError`."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=list)
        self._known_details: set[str] = set()

    def refused(self, made: Input, detail: str) -> None:
        """The record was refused, with this detail."""
        self._quotes_nothing(made.value, detail)

    def kept(self, made: Input, result: Normalized) -> None:
        """The record has become this."""
        for reject in result.rejects:
            self._quotes_nothing(made.value, reject.detail)
        _require(all(_is_within(reject, result.members) for reject in result.rejects), "a reject is at no place")
        if result.ignored is not None:
            _require(not result.groups and not result.clearing and not result.rejects, "what is ignored does something")
            return
        try:
            self._encoder.encode(result)
        except Exception as exc:
            raise BrokenPromiseError(f"the result cannot be written as JSON: {type(exc).__name__}: {exc}") from exc
        for group in result.groups:
            _check_group(group, result.members, made.setting.limits)
        if len(result.groups) > 1:
            pairs = [(group.segment, key) for group in result.groups for key in group.context_keys]
            _require(len(set(pairs)) == len(pairs), "a context is in two groups of one segment")
        if result.clearing is not None:
            _check_page(result.clearing.page, result)
        if result.clearing is not None or not all(group.included for group in result.groups):
            _check_removals(made, result)

    def same(self, result: Normalized, long_way: Callable[[], Normalized]) -> None:
        """Member by member, the record becomes the same."""
        try:
            other = long_way()
        except InvalidRecord as problem:
            # The short way skips what it does not know without looking at it.
            _require(problem.reason is Reason.JSON_INVALID, f"the long way refuses it: {problem.reason}")
        else:
            is_same = self._encoder.encode(result) == self._encoder.encode(other)
            _require(is_same, "the short and the long way differ")

    def _quotes_nothing(self, value: bytes, detail: str) -> None:
        if detail in self._known_details:  # they are few, as long as they quote nothing
            return
        for text in _unusual_texts(value):
            _require(text not in detail, "a detail quotes the payload")
        if len(self._known_details) < _MOST_DETAILS:
            self._known_details.add(detail)


def _check_group(group: DeltaGroup, members: int, limits: Limits) -> None:
    keys, places = group.context_keys, group.places
    _require(len(keys) == len(places) > 0, "keys and places are not as many, or none")
    _require(len(set(keys)) == len(keys), "a context is twice in a group")
    _require(min(places) >= 0 and max(places) < members, "a place is outside of the record")
    most = limits.context_key_bytes
    _require(all(len(key) * 4 <= most or len(key.encode()) <= most for key in keys), "a key is too long")
    _require(all(key and not key.isspace() and "\0" not in key for key in keys), "a key is blank or holds NUL")
    cohort = group.cohort
    for text in (cohort.cohort_id, cohort.name, cohort.url, *group.segment, group.context_kind):
        _require(text is None or (text != "" and "\0" not in text), "a text is empty or holds NUL")
    latest = (NOW_MS + limits.future_skew_s * 1000) * 1000
    _require(0 < group.version.event_time_us <= latest, "a time is not one that is believed")


def _check_page(page: Page | None, result: Normalized) -> None:
    if page is None:
        return
    _require(not result.rejects, "a page that was not understood replaces")
    session = page.session
    is_session = session is None or (session.strip() and "\0" not in session and len(session.encode()) <= SESSION_BYTES)
    _require(bool(is_session), "a session has no name that can be kept")
    is_counted = page.pages is None or (session is not None) or page.pages == 1
    _require(is_counted and 1 <= page.number <= (page.pages or page.number), "a page is none of its session")


def _check_removals(made: Input, result: Normalized) -> None:
    try:
        document: Any = removals.document_of(made.value)
    except (ValueError, RecursionError) as exc:
        raise BrokenPromiseError("somebody is removed by what is no JSON") from exc
    for group in result.groups:
        if not group.included:
            for key, place in zip(group.context_keys, group.places, strict=True):
                _require(removals.leaves(made.integration, document, place, key), "a removal is not spelled out")
    clearing = result.clearing
    if clearing is not None:
        cohort_id, is_replace = clearing.cohort.cohort_id, clearing.page is not None
        is_said = removals.empties(made.integration, document, cohort_id, made.feed.cohort_id, replaces=is_replace)
        _require(is_said, "an emptied segment is not spelled out")


def _unusual_texts(value: bytes) -> list[str]:
    texts = {(quoted or digits).decode("utf-8", "replace") for quoted, digits in _TEXT.findall(value)}
    return [text for text in texts if _UNUSUAL.search(text)]


def _is_within(reject: Reject, members: int) -> bool:
    return reject.place is None or 0 <= reject.place < members


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BrokenPromiseError(otherwise)
