"""The short way through a manifest's payload: a typed decoder, made from the pointers, reads the members as columns.

It takes what is well formed throughout: objects where objects belong, ids that are strings or integers, and memberships
that are true or false. Of anything else it says None, and the request parser looks at each member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from consumers.pointer import Pointer
from consumers.typed_decoder import Getter, NotOneShapeError, Tokens, getter_of, struct_of

_ID: Any = str | int
_OPTIONAL_ID: Any = str | int | None
_OPTIONAL_TEXT: Any = str | None

_TYPES: Mapping[str, Any] = {
    "environment": _OPTIONAL_ID,
    "context_kind": _OPTIONAL_TEXT,
    "cohort_id": _OPTIONAL_ID,
    "cohort_name": _OPTIONAL_TEXT,
    "cohort_url": _OPTIONAL_TEXT,
    "action": _OPTIONAL_TEXT,
    "session": _OPTIONAL_ID,
    "page": _OPTIONAL_ID,
    "pages": _OPTIONAL_ID,
    "member_id": _ID,
    "member_included": bool,
    "member_cohort_id": _OPTIONAL_ID,
    "member_cohort_name": _OPTIONAL_TEXT,
    "member_cohort_url": _OPTIONAL_TEXT,
}


class Columns:
    """A decoded payload. Values are as they came: of the right JSON type, and otherwise not checked."""

    def __init__(self, record: Any, lists: list[list[Any]], record_getters: Getters, member_getters: Getters) -> None:
        self.lists = lists
        self._members = lists[0] if len(lists) == 1 else list(chain.from_iterable(lists))
        self._record = record
        self._of_record = record_getters
        self._of_member = member_getters

    def one(self, name: str) -> Any:
        """A value of the record, None where it has none."""
        getter = self._of_record.get(name)
        if getter is not None:
            return getter(self._record)
        # A manifest may take the record's cohort from its first member.
        getter = self._of_member.get(f"first {name}")
        return None if getter is None else getter(self._members[0])

    def column(self, name: str) -> list[Any]:
        """A value of each member, list by list; an empty column where the manifest has no pointer to it."""
        getter = self._of_member.get(name)
        return [] if getter is None else list(map(getter, self._members))


Getters = Mapping[str, Getter]


class ColumnDecoder:
    """Decodes the payloads of one manifest. Raises `NotOneShapeError` for pointers that no type can follow."""

    def __init__(self, pointers: Mapping[str, Pointer | None], lists: Sequence[Pointer]) -> None:
        record: dict[str, Tokens] = {}
        member: dict[str, Tokens] = {}
        first = Pointer((*lists[0].tokens, "0"))
        for name, pointer in pointers.items():
            if pointer is None:
                continue
            if name.startswith("member_"):
                member[name] = pointer.tokens
            elif len(lists) == 1 and (inner := pointer.below(first)) is not None:
                member[f"first {name}"] = inner.tokens
            else:
                record[name] = pointer.tokens
        member_list: Any = list[struct_of(_leaves(member))]  # type: ignore[misc] # a type made while running
        if len(lists) > 1:
            member_list |= None  # one of several may be missing
        shape = _leaves(record)
        for pointer in lists:
            if shape.setdefault(pointer.tokens, member_list) is not member_list:
                raise NotOneShapeError
        self._decoder = msgspec.json.Decoder(struct_of(shape))
        self._lists = [getter_of(pointer.tokens) for pointer in lists]
        self._of_record = {name: getter_of(tokens) for name, tokens in record.items()}
        self._of_member = {name: getter_of(tokens) for name, tokens in member.items()}

    def decode(self, value: bytes) -> Columns | None:
        """The payload, if it is well formed and lists anybody."""
        try:
            record = self._decoder.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return None
        lists = [getter(record) or [] for getter in self._lists]
        return Columns(record, lists, self._of_record, self._of_member) if any(lists) else None


def _leaves(roles: Mapping[str, Tokens]) -> dict[Tokens, Any]:
    """The type at each pointer. Two names may share a pointer where they expect the same there."""
    leaves: dict[Tokens, Any] = {}
    for name, tokens in roles.items():
        kind = _TYPES[name.removeprefix("first ")]
        if leaves.setdefault(tokens, kind) is not kind:
            raise NotOneShapeError
    return leaves
