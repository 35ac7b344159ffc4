"""Which integrations can read records that the one that was named makes nothing of."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from consumers.errors import InvalidRecord
from consumers.feeds import Feed
from consumers.formats import Formats
from worker.commands.json_records import Line
from worker.commands.parse_outcome import Reader, Rules

_ANY_COHORT = "any"
_MOST_NAMED = 4


def fitting_integrations(lines: Sequence[Line], feed: Feed, rules: Rules) -> str | None:
    """What to try instead, as a sentence; None where no integration can read any of these lines."""
    formats = Formats(rules.manifests)
    with_cohort = msgspec.structs.replace(feed, cohort_id=feed.cohort_id or _ANY_COHORT)
    for asked, options in ((feed, ""), (with_cohort, " --cohort-id ID")):
        readers = {
            name: rules.reader(msgspec.structs.replace(asked, format=name), formats)
            for name in formats.names()
            if options or name.casefold() != feed.format.casefold()
        }
        scores = {
            name: sum(_understands(reader, line, with_operations=not options) for line in lines)
            for name, reader in readers.items()
        }
        fitting = sorted((name for name in scores if scores[name]), key=lambda name: -scores[name])[:_MOST_NAMED]
        if fitting:
            tries = " or ".join(f"--integration {name}{options}" for name in fitting)
            return f"nothing here is for any segment as {feed.format} has it: try {tries}"
    return None


def _understands(reader: Reader, line: Line, *, with_operations: bool) -> bool:
    """Whether all of it means something. Nobody is advised to empty a cohort that a payload does not name."""
    try:
        parsed = reader.read(line)
    except InvalidRecord:
        return False
    return not parsed.rejects and (bool(parsed.changes) or (with_operations and parsed.operation is not None))
