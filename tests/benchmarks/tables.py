"""Tables of medians, and the limits that they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

console = Console()


def progress() -> Progress:
    """How far a long benchmark is; on standard error, and only on a terminal."""
    on_stderr = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=on_stderr,
        transient=True,
        disable=not on_stderr.is_terminal,
    )


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Round by round, so that a machine that drifts does not count."""
    return [first / second for first, second in zip(numerator, denominator, strict=True)]


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """The median, with what the rounds ranged over."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def verdict(values: Sequence[float], at_least: float) -> str:
    """The median ratio against its goal."""
    mark = "reached" if median(values) >= at_least else "MISSED"
    return f"{spread(values, '.2f')}, goal {at_least:.2f}: {mark}"


def table(title: str, *columns: str) -> Table:
    """An empty table whose first column is text and whose others are figures."""
    made = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left")
    return made
