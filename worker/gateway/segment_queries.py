"""What may be asked of a list of segments: `filter`, `sort`, `limit` and `offset`, as LaunchDarkly has them. Pure."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec
from starlette.datastructures import QueryParams

from stores.postgres.segments import SegmentFilter
from worker.gateway.answers import Refused

DEFAULT_LIMIT, MOST_LIMIT = 20, 100
MOST_OFFSET = 1_000_000
MOST_VALUES = 100
SORTS = ("creationDate", "name", "lastModified")
DEFAULT_SORT = "-creationDate"
FILTER_CHARACTERS = 4_096
_NUMBER = re.compile(r"[0-9]{1,7}")
_CONDITION = re.compile(
    r"\s*(?P<name>query|tags|includedKeys|external|unbounded)\s+(?P<operator>equals|anyOf|exists)\s+"
    r"(?P<value>\"(?:[^\"\\]|\\.)*\"|\[(?:[^\]\"]|\"(?:[^\"\\]|\\.)*\")*\]|true|false|[A-Za-z0-9_.-]+)\s*(?:,|$)"
)


class SegmentQuery(NamedTuple):
    """A page of a list. `is_empty` where no segment can fit, since every one here is unbounded and external."""

    wanted: SegmentFilter
    sort: str
    limit: int
    offset: int
    is_empty: bool


def parse_query(parameters: QueryParams) -> SegmentQuery:
    """What these parameters ask for. Raises `Refused`."""
    sort = parameters.get("sort", DEFAULT_SORT)
    if sort.removeprefix("-") not in SORTS:
        raise _invalid(f"sort is one of {', '.join(SORTS)}, perhaps with - before it")
    limit = _number(parameters, "limit", DEFAULT_LIMIT, MOST_LIMIT)
    offset = _number(parameters, "offset", 0, MOST_OFFSET)
    wanted, is_empty = SegmentFilter(), False
    for name, operator, value in _conditions(parameters.get("filter", "")):
        if (name, operator) == ("query", "equals"):
            wanted = wanted._replace(query=_text(value))
        elif (name, operator) == ("tags", "anyOf"):
            wanted = wanted._replace(any_tag=_texts(value))
        elif (name, operator) == ("includedKeys", "anyOf"):
            wanted = wanted._replace(any_member=_texts(value))
        elif (name, operator) in (("external", "exists"), ("unbounded", "equals")) and isinstance(value, bool):
            is_empty = is_empty or not value
        else:
            raise _invalid(f"filter: {name} can't be asked with {operator} so")
    return SegmentQuery(wanted, sort, limit, offset, is_empty)


def _conditions(text: str) -> list[tuple[str, str, Any]]:
    if len(text) > FILTER_CHARACTERS:
        raise _invalid(f"filter has more than {FILTER_CHARACTERS} characters")
    found, at = [], 0
    while at < len(text):
        condition = _CONDITION.match(text, at)
        if condition is None:
            raise _invalid('filter is not understood: write it as in tags anyOf ["beta"], query equals "power"')
        found.append((condition["name"], condition["operator"], _value(condition["value"])))
        at = condition.end()
    return found


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        if text.startswith(("[", '"')):
            raise _invalid("filter has a value that is not JSON") from None
        return text  # a word without quotes


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _invalid("filter: a text was expected")
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > MOST_VALUES:
        raise _invalid(f"filter: a list of at most {MOST_VALUES} texts was expected")
    return [_text(each) for each in value]


def _number(parameters: QueryParams, name: str, default: int, most: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise _invalid(f"{name} is a number of at most {most}")
    return int(text)


def _invalid(message: str) -> Refused:
    return Refused(400, "invalid_request", message)
