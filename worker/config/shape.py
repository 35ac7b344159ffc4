"""The shape of the settings: which names there are at each place, and of what kind."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from worker.settings import Settings

INDEX = "#"
"""Stands for any place in a list, in the paths of `all_paths`."""


def at(location: tuple[str | int, ...]) -> Any:
    """The type of the setting there, or None where there is no such setting."""
    found: Any = Settings
    for step in location:
        found = _bare(_inside(found, step))
    return found


def fields_at(location: tuple[str | int, ...]) -> list[str]:
    """The names of the settings in the section there."""
    found = at(location)
    return list(found.model_fields) if _is_section(found) else []


def is_list(kind: Any) -> bool:
    """Whether this type is a list of settings or values."""
    return get_origin(kind) is tuple


def is_text(kind: Any) -> bool:
    """Whether a value of this type is written as plain text."""
    return get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, (str, Path, SecretStr)))


def all_paths(kind: Any = Settings, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every setting, sections and lists too."""
    if before:
        yield before
    if is_list(kind):
        yield from all_paths(_bare(get_args(kind)[0]), (*before, INDEX))
    elif _is_section(kind):
        for name, field in kind.model_fields.items():
            yield from all_paths(_bare(field.annotation), (*before, name))


def _inside(kind: Any, step: str | int) -> Any:
    if isinstance(step, int):
        return get_args(kind)[0] if is_list(kind) else None
    field = kind.model_fields.get(step) if _is_section(kind) else None
    return field.annotation if field else None


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _bare(kind: Any) -> Any:
    """The type without what pydantic is told about it, and without None."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _bare(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return _bare(next(part for part in get_args(kind) if part is not type(None)))
    return kind
