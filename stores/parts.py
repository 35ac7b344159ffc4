"""Long things in bounded parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def in_parts(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values in their order, so many at a time. It would be `itertools.batched` with Python 3.12."""
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part
