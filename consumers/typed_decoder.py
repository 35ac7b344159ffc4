"""Makes msgspec types from JSON pointers, so that a manifest's payload is decoded as fast as one written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec

Tokens = tuple[str, ...]
Getter = Callable[[Any], Any]

_NOT_OF_NAMES = re.compile(r'["\\\x00-\x1f]')
"""What msgspec takes in no property's name."""


class NotOneShapeError(Exception):
    """No type has all these pointers: one goes through another, or into a list, or by a name that no type can have."""


def struct_of(leaves: Mapping[Tokens, Any]) -> type[msgspec.Struct]:
    """The type of an object with these leaves. A leaf that may be None may also be missing."""
    if () in leaves:  # the object itself is to be a value
        raise NotOneShapeError
    fields: list[tuple[str, Any] | tuple[str, Any, None]] = []
    for token, group in groupby(sorted(leaves), key=lambda tokens: tokens[0]):
        inner = {tokens[1:]: leaves[tokens] for tokens in group}
        if token.isdigit() or _NOT_OF_NAMES.search(token) or (() in inner and len(inner) > 1):
            raise NotOneShapeError
        fields.append(_field(_attribute(token), inner.get(()) or struct_of(inner)))
    names = {_attribute(tokens[0]): tokens[0] for tokens in leaves}
    return msgspec.defstruct("Shape", fields, rename=names, kw_only=True, gc=False)


def getter_of(tokens: Tokens) -> Getter:
    """Reads the leaf of these tokens from a struct that `struct_of` made."""
    return attrgetter(".".join(map(_attribute, tokens)))


def _field(name: str, kind: Any) -> tuple[str, Any] | tuple[str, Any, None]:
    is_optional = type(None) in getattr(kind, "__args__", ())
    return (name, kind, None) if is_optional else (name, kind)


def _attribute(token: str) -> str:
    # Any text may name a property, but not an attribute.
    return f"p{token.encode().hex()}"
