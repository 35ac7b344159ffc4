"""How many members a body may list: to reject four million of them one by one would hold up everybody for seconds."""

from __future__ import annotations

from consumers.document import decode_raw
from consumers.errors import InvalidRecord
from worker.gateway.answers import too_large


def check_members(body: bytes, most: int) -> None:
    """Raises `Refused` where the lists in the body hold more than that together, whatever they are lists of."""
    # Commas part whatever is in lists. Hardly a body has so many that it must be looked at.
    if body.count(b",") >= most and _elements(body, most) > most:
        raise too_large(f"The body lists more than {most} members")


def _elements(body: bytes, enough: int) -> int:
    """How much is in all lists of the body, or some number that is more than enough."""
    try:
        waiting = [decode_raw(body)]
    except InvalidRecord:
        return 0  # the parser says what is wrong with it
    found = 0
    while waiting and found <= enough:
        each = waiting.pop()
        if isinstance(each, list):
            found += len(each)
        if found <= enough:
            waiting += _containers(each)
    return found


def _containers(each: object) -> list[object]:
    inner = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
    return [value for value in inner if isinstance(value, dict | list)]
