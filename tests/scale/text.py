"""Figures and tables in words and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.scale.model import Workload
from tests.scale.simulation import HOUR_S

MILLION, BILLION = 1e6, 1e9
MINUTE_S = 60.0


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def workload(load: Workload) -> str:
    return f"{count(load.memberships)}, {load.deltas_a_second:,.0f}"


def share(used: float) -> str:
    return f"{used:.0%}" if used < 10 else f"{used:.0f} times"


def error(expected: float, measured: float) -> str:
    return f"{expected / measured - 1:+.0%}"


def count(number: float) -> str:
    for unit, name in ((BILLION, "billion"), (MILLION, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,.0f}"


def gb(number: float) -> str:
    return f"{number:,.0f} GB" if number >= 10 else f"{number:.1f} GB"


def time(seconds: float) -> str:
    if seconds < 2 * MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE_S:.0f} min" if seconds < 2 * HOUR_S else f"{seconds / HOUR_S:.1f} h"
