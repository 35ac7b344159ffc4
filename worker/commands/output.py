"""How commands print: tables for people, JSON lines for programs, progress on standard error.

What stands in keys and names comes from strangers: on a terminal, characters that could control it are shown as
escapes.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Row = Mapping[str, object]

MOST_ON_TERMINAL_BYTES = 4_096
"""Of one value of a record."""
_WIDTH_WITHOUT_TERMINAL = 400
_LOOK_AHEAD_ROWS = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Advance(Protocol):
    """Says how far a command has got."""

    def __call__(self, steps: int = 1) -> None: ...


def rfc3339(moment: datetime | int | None) -> str | None:
    """A time, or microseconds since 1970, in UTC with microseconds and Z. None stays None."""
    if moment is None:
        return None
    if isinstance(moment, int):
        moment = _EPOCH + timedelta(microseconds=moment)
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def print_json(*rows: Row) -> None:
    """Each row as one line of JSON."""
    sys.stdout.write("".join(msgspec.json.encode(row).decode() + "\n" for row in rows))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> None:
    """A table; the columns in `numbers` stand to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    _console().print(table)


async def print_long_table(columns: Sequence[str], rows: AsyncIterator[Sequence[object]]) -> None:
    """A table of any length in flat memory: the first rows decide how wide the columns are."""
    first = [list(columns)]
    widths: list[int] = []
    async for row in rows:
        cells = [shown(cell) for cell in row]
        if widths:
            _print_cells(cells, widths)
        else:
            first.append(cells)
            if len(first) > _LOOK_AHEAD_ROWS:
                widths = _print_first(first)
    if not widths:
        _print_first(first)


def print_line(text: str) -> None:
    """A line on standard output."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """A line for people on standard error, where it is in no program's way."""
    sys.stderr.write(text + "\n")


def shown(value: object) -> str:
    """A cell as people read it: nothing for None, yes and no, digits in groups, and no control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(value))


def shown_content(raw: bytes | None) -> str:
    """What a record holds, as people read it: on a terminal only its beginning, as records may be large."""
    if raw is None:
        return shown(None)
    if len(raw) <= MOST_ON_TERMINAL_BYTES or not sys.stdout.isatty():
        return shown(raw.decode("utf-8", "replace"))
    beginning = shown(raw[:MOST_ON_TERMINAL_BYTES].decode("utf-8", "replace"))
    return f"{beginning}... (cut: it has {len(raw):,} bytes, and --json gives all)"


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Advance]:
    """A progress bar on standard error, where that is a terminal; elsewhere nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.completed:,}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task(label, total=total)

        def advance(steps: int = 1) -> None:
            bar.update(task, advance=steps)

        yield advance


def _print_first(rows: Sequence[Sequence[str]]) -> list[int]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        _print_cells(row, widths)
    return widths


def _print_cells(cells: Sequence[str], widths: Sequence[int]) -> None:
    print_line("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _console() -> Console:
    # What goes to a file or a pipe must not be cut or wrapped to the width of a terminal that isn't there.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
