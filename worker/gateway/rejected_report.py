"""Who is missing from a segment, as JSON and as the CSV that people look through. Pure."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

from stores.postgres.rejects import NotedReject
from worker.commands.output import rfc3339

COLUMNS = ("member", "reason", "detail", "rejected_at", "topic", "partition", "offset", "place")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_json(rejects: Sequence[NotedReject]) -> dict[str, object]:
    """Each of them, and how many there are for each reason."""
    return {
        "items": [_row(each) for each in rejects],
        "totalCount": len(rejects),
        "byReason": dict(Counter(each.reason for each in rejects).most_common()),
    }


def as_csv(rejects: Sequence[NotedReject]) -> str:
    """A line for each of them under a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for each in rejects:
        writer.writerow({name: _harmless(value) for name, value in _row(each).items()})
    return text.getvalue()


def _row(reject: NotedReject) -> dict[str, object]:
    row = reject._asdict() | {"rejected_at": rfc3339(reject.rejected_at)}
    return {name: row[name] for name in COLUMNS}


def _harmless(value: object) -> object:
    """A spreadsheet takes such text for a formula, and whoever sends members could write it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
