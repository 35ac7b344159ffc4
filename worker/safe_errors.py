"""What may be said of an exception without quoting the data that it was about."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

OUR_PACKAGES = ("worker", "consumers", "stores")
"""The errors of these promise to quote no data."""
DEEPEST_CHAIN = 8


def describe_error(exc: BaseException) -> str:
    """The error's type, with its text where that is known to be safe, or its SQLSTATE."""
    name = type(exc).__name__
    sqlstate = getattr(exc, "sqlstate", None)
    if type(exc).__module__.partition(".")[0] in OUR_PACKAGES:
        return f"{name}: {exc}"
    if sqlstate:
        return f"{name} (SQLSTATE {sqlstate})"
    if isinstance(exc, OSError) and exc.strerror:
        return f"{name}: {exc.strerror}"
    return name


def safe_traceback(exc: BaseException) -> str:
    """Where it was raised and by way of what, cause first; source lines, but no texts and no values."""
    return "\n".join(_lines(exc, DEEPEST_CHAIN))


def _lines(exc: BaseException, depth: int) -> Iterator[str]:
    before = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if before is not None and depth:
        yield from _lines(before, depth - 1)
        yield "-> led to"
    yield from stack_lines(traceback.extract_tb(exc.__traceback__))
    yield describe_error(exc)
    if isinstance(exc, BaseExceptionGroup) and depth:
        for number, inner in enumerate(exc.exceptions, 1):
            yield f"-> {number} of {len(exc.exceptions)} in the group"
            yield from _lines(inner, depth - 1)


def stack_lines(frames: traceback.StackSummary) -> Iterator[str]:
    """Each frame as `file:line in function: source`."""
    for frame in frames:
        yield f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line or ''}".rstrip(": ")
