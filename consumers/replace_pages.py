"""Which page of which replace session a record is."""

from __future__ import annotations

import re

from consumers.errors import InvalidValue, Reason
from consumers.values import MISSING
from stores.model import Page

SESSION_BYTES = 256
LARGEST_SESSION_PAGES = 1_000_000
_NUMBER = re.compile(r"[0-9]{1,9}")


def page_of(session: object, number: object, pages: object) -> Page:
    """The page that these three name. Raises `InvalidValue` where they make no sense together.

    Without a number and a count of pages, the session is one that does not say when it is complete.
    """
    named = _session(session)
    if _is_absent(number) and _is_absent(pages):
        return Page(named)
    page, of = _count(number, "page's number"), _count(pages, "number of pages")
    if page > of:
        raise _invalid("the page's number is larger than the number of pages")
    if named is None and of > 1:
        raise _invalid("several pages need a session that they belong to")
    return Page(named, page, of)


def _session(value: object) -> str | None:
    if _is_absent(value) or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or "\0" in value or value.isspace() or len(value.encode()) > SESSION_BYTES:
        raise _invalid(f"the session is no text or integer of at most {SESSION_BYTES} bytes, or blank")
    return value


def _count(value: object, what: str) -> int:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_SESSION_PAGES:
        raise _invalid(f"the {what} is not from 1 to {LARGEST_SESSION_PAGES}")
    return value


def _is_absent(value: object) -> bool:
    return value is MISSING or value is None


def _invalid(what: str) -> InvalidValue:
    return InvalidValue(Reason.PAGE_INVALID, what)
