"""The statements of `sql/queries.sql`, by name."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

SQL_FOLDER = Path(__file__).parent.parent / "sql"
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def _statements() -> dict[str, str]:
    _, *names_and_bodies = _NAME.split((SQL_FOLDER / "queries.sql").read_text())
    return dict(zip(names_and_bodies[::2], names_and_bodies[1::2], strict=True))


def query(name: str) -> str:
    """The statement of this name. A name that does not exist is a KeyError."""
    return _statements()[name]
